"""Simulate statevectors exactly, in batches, in torch."""
