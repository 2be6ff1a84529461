"""How fast it is, beside what else could have been used. Run with ``python -m stress.bench.X``."""
