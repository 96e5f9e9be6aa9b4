"""Benchmarks: micro ones with pytest-benchmark, curves and races as scripts."""
