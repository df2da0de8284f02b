"""Circuits on Ray actors: circuit_pool.py starts them, backend.py is what a training worker asks."""
