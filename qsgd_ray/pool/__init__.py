"""Circuits on Ray actors: pool.py starts the actors, backend.py is the backend that training workers use."""
