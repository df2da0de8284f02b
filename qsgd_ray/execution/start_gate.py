"""Gate that every trial passes before it starts: open until a study's budget is spent, then closed for good.

What runs when it closes is trained to its end; what it holds back has no row, and the same study goes on with it later.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError


class _Gate:
    """The plain class behind the actor."""

    def __init__(self) -> None:
        self._is_open = True

    def close(self) -> None:
        self._is_open = False

    def is_open(self) -> bool:
        return self._is_open


class StartGate:
    """A gate on a Ray actor; can be pickled and sent to other processes."""

    def __init__(self) -> None:
        self._gate: Any = ray.remote(num_cpus=0)(_Gate).remote()

    def close(self) -> None:
        """Let no further trial start; returns without waiting."""
        self._gate.close.remote()

    def is_open(self) -> bool:
        """Return True where a trial may start; also where the actor is gone, as nothing is known then."""
        try:
            open_: bool = ray.get(self._gate.is_open.remote())
        except RayError:
            return True
        return open_
