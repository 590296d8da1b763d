"""How fast, how large and how accurate: `python -m benchmarks --help`."""
