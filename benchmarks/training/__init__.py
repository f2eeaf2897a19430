"""The training loop beside plain ones; run it with ``python -m benchmarks.training``."""
