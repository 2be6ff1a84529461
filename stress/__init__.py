"""What is too slow, too random or too long for the tests: searches for races, and benchmarks."""
