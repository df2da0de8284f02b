"""Who is in the pool now: written by whoever keeps it, read by every process that asks circuits.

The list lies on a Ray actor without CPUs. A reader looks at it beside its work, and at once where it must.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# A reader's list is no older, as long as it is used.
REFRESH_S = 1.0
# How long to wait for the list where nothing can go on without.
ASK_S = 5.0

Members = dict[int, Any]  # an actor's number, and the actor


class _Board:
    """The plain class behind the actor."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def write(self, members: Members) -> None:
        self._members = members

    def read(self) -> Members:
        return self._members


class Roster:
    """The list as its keeper holds it. `members`: as last written."""

    def __init__(self, members: Members) -> None:
        self.members = members
        # Beside its keeper, with which it ends: Ray puts an actor without CPUs anywhere, on a spot node as well.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._board: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote(members)

    def write(self, members: Members) -> None:
        """These from now on."""
        self.members = members
        self._board.write.remote(members)

    def view(self) -> RosterView:
        """For one reader."""
        return RosterView(self._board, self.members)

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._board)


class RosterView:
    """The list as one reader knows it: for one thread, can be sent to other processes."""

    def __init__(self, board: Any, members: Members) -> None:
        self._board = board
        self._members = members
        self._asked: ray.ObjectRef | None = None
        self._asked_at = time.monotonic()

    def members(self) -> Members:
        """As of a second ago or so, without waiting."""
        if self._asked is not None:
            self._read(0)
        elif time.monotonic() - self._asked_at > REFRESH_S:
            self._asked, self._asked_at = self._board.read.remote(), time.monotonic()
        return self._members

    def newest(self) -> Members:
        """As it is now; as it was where nobody tells."""
        self._asked, self._asked_at = self._board.read.remote(), time.monotonic()
        self._read(ASK_S)
        return self._members

    def _read(self, timeout_s: float) -> None:
        if not ray.wait([self._asked], timeout=timeout_s)[0]:
            return
        # The pool may be closed, or its keeper's node gone: what is left still answers.
        with suppress(RayError):
            self._members = ray.get(self._asked)
        self._asked = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_asked": None, "_asked_at": 0.0}  # clocks differ from machine to machine
