"""Errors of circuits that have no answer: they were refused, their backend was lost, or memory is too small."""

from __future__ import annotations


class CircuitError(RuntimeError):
    """Base class of the errors of all backends; the message is one line."""


class CircuitsLost(CircuitError):
    """The process that should have answered is gone or does not respond.

    The circuits themselves are valid: another attempt may succeed.
    """


class CircuitMemoryError(CircuitError):
    """The simulation needs more memory than there is; raised before anything is allocated."""
