"""Benchmark workloads, the peers they are timed against, and the commands that time them."""
