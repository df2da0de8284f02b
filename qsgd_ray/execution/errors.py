"""Errors of a Ray that a study cannot go on with."""


class RayLost(RuntimeError):
    """A private Ray did not start, or one of its own processes has ended; one line."""
