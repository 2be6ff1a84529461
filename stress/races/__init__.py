"""One invariant a file, on real threads. `python -m stress.run --list` names them.

Each file says what is ACCEPTABLE and what is FORBIDDEN, and how the threads are disturbed. What
a race makes random comes from its bout's seed, which is in every failure message.
"""
