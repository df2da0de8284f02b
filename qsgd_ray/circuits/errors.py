"""Why circuits have no answer: refused, lost on the way, or larger than the memory."""

from __future__ import annotations


class CircuitError(RuntimeError):
    """Circuits that could not be answered, told in one line."""


class CircuitsLost(CircuitError):
    """Whoever should have answered is gone or does not answer: nothing is wrong with the circuits."""


class CircuitMemoryError(CircuitError):
    """A state that does not fit."""
