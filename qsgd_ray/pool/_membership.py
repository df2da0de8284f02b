"""The list of a pool's members: the autoscaler writes it, every process that sends circuits reads it.

The list lies on a Ray actor that takes no CPU, as a reference to it: whoever unpickles the handles in it imports what
circuit actors need, and a reader that knows the reference has nothing to do. A reader refreshes its copy in the
background, and waits for a newer one only after an actor was lost.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# A reader's copy is no older than this while it is used.
REFRESH_S = 1.0
# Longest wait for the list where nothing can go on without it.
_READ_TIMEOUT_S = 5.0

_Members = dict[int, Any]  # an actor's number, and its handle


class _MemberList:
    """The plain class behind the actor that holds the list: a reference, in a tuple, as Ray would follow a bare one."""

    def __init__(self, where: tuple[ray.ObjectRef]) -> None:
        self._where = where

    def write(self, where: tuple[ray.ObjectRef]) -> None:
        self._where = where

    def read(self) -> tuple[ray.ObjectRef]:
        return self._where


class Membership:
    """The writer's side of the list. `members`: as last published."""

    def __init__(self, members: _Members) -> None:
        self.members = members
        self._where = ray.put(members)
        # On the writer's node, with which it ends: Ray places an actor without CPUs anywhere, on a spot node as well.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._list: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_MemberList).remote((self._where,))

    def publish(self, members: _Members) -> None:
        """Replace the list."""
        self.members = members
        self._where = ray.put(members)
        self._list.write.remote((self._where,))

    def reader(self) -> MembershipReader:
        """Return the side of one reader, which starts from today's list."""
        return MembershipReader(self._list, self._where, self.members)

    def close(self) -> None:
        """End the actor that holds the list."""
        ray.kill(self._list)


class MembershipReader:
    """A reader's copy of the list: for one thread; it can be sent to other processes."""

    def __init__(self, member_list: Any, where: ray.ObjectRef, members: _Members) -> None:
        self._list = member_list
        self._where: ray.ObjectRef | None = where  # what is known lies there
        self._members = members
        self._read: ray.ObjectRef | None = None  # under way
        self._read_at = time.monotonic()

    def members(self) -> _Members:
        """Return the members as of about a second ago, without waiting."""
        if self._read is not None:
            self._collect(0)
        elif time.monotonic() - self._read_at > REFRESH_S:
            self._start()
        return self._members

    def refresh(self) -> _Members:
        """Return the members as they are now; the last known ones where the list cannot be read."""
        self._start()
        self._collect(_READ_TIMEOUT_S)
        return self._members

    def _start(self) -> None:
        self._read, self._read_at = self._list.read.remote(), time.monotonic()

    def _collect(self, timeout_s: float) -> None:
        if not ray.wait([self._read], timeout=timeout_s)[0]:
            return
        # The pool may be closed, or the writer's node gone: the remaining actors still answer.
        with suppress(RayError):
            (where,) = ray.get(self._read)
            if where != self._where:
                self._members, self._where = ray.get(where, timeout=_READ_TIMEOUT_S), where
        self._read = None

    def __getstate__(self) -> dict[str, Any]:
        # Clocks differ from machine to machine, and a reference alone would keep an old list.
        return {**self.__dict__, "_read": None, "_read_at": 0.0, "_where": None}
