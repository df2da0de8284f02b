"""Measure circuits against peers: answers compared first, then medians of interleaved rounds (docs/benchmarks.md)."""
