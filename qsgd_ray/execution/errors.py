"""Errors of a Ray that a study cannot go on with."""

from __future__ import annotations


class RayLost(RuntimeError):
    """A private Ray did not start, or one of its own processes has ended; one line."""

    @classmethod
    def ended(cls, name: str) -> RayLost:
        """Return the error for a process of Ray's core, by the name of its program, that has ended."""
        return cls(
            f"Ray's {name} has ended: it was killed, by hand or for want of memory. What is finished is kept; the same "
            "command goes on from there"
        )
