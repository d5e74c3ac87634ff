"""Benchmarks of the loss ops; run as `python -m benchmarks` from a checkout."""
