"""Errors of a Ray that a study cannot go on with."""

from __future__ import annotations

# What a user need know whenever Ray is gone.
_GOES_ON = "What is finished is kept; the same command goes on from there"


class RayLost(RuntimeError):
    """A private Ray did not start, or one of its own processes has ended; one line."""

    @classmethod
    def ended(cls, name: str) -> RayLost:
        """Return the error for a process of Ray's core, by the name of its program, that has ended."""
        return cls(f"Ray's {name} has ended: it was killed, by hand or for want of memory. {_GOES_ON}")

    @classmethod
    def by(cls, error: BaseException) -> RayLost:
        """Return the error for stages that an error of Ray's own has ended."""
        reason = (str(error).strip() or "no reason").partition("\n")[0].rstrip(".:")[:200]
        return cls(f"Ray failed ({type(error).__name__}: {reason}). {_GOES_ON}")


def is_of_ray(error: BaseException | None) -> bool:
    """Return whether an error tells of Ray's processes and nodes, and not of code that ran in one of them."""
    from ray.exceptions import RayError, RayTaskError

    if isinstance(error, RayTaskError):
        return is_of_ray(error.cause)
    return isinstance(error, RayError)
