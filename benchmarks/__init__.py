"""The usual loop beside the engine: `python -m benchmarks.cpu`, `python -m benchmarks.cuda`."""
