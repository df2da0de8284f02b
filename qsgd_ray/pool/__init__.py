"""Circuits on Ray actors: pool.py starts them, backend.py is what a training worker asks."""
