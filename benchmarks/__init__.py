"""Measurements, run as modules: `python -m benchmarks.NAME`. A package, or another of this name would hide it."""
