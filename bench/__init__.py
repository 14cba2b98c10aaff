"""Benchmarks: measures each figure and what it is compared with in one run."""
