"""The pool's actors as one process reaches them: the choice of the next actor, and a connection to each."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError

from qsgd_ray.pool._connection import Connection
from qsgd_ray.pool._membership import MembershipReader
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import ConnectionLost

# Requests under way to one actor, at most: two keep it busy, more only wait there.
_MAX_IN_FLIGHT = 4
# Longest wait until one of them is answered. After that, more are sent without a wait until an answer has come.
_QUEUE_WAIT_S = 30.0
# Longest wait for the address of an actor's server.
_ADDRESS_WAIT_S = 1.0
# A server that cannot be reached is tried again after so long; until then Ray's calls carry the requests.
_UNREACHABLE_S = 60.0
# So many connections in a row that broke before their first answer make a server unreachable: something in between,
# such as a proxy, may accept every connection and close it.
_MAX_BROKEN = 3
# An actor that was lost, or whose server is silent, is passed over for so long while there are others: with its node
# gone it may come back elsewhere, but only once there is a new node.
_LOST_S = 10.0

_log = logging.getLogger(__name__)


class Member(NamedTuple):
    """An actor of the pool.

    Attributes:
        number: its number in the membership, unique in the pool's life.
        actor: its Ray handle.
    """

    number: int
    actor: Any


@dataclass
class Router:
    """Chooses actors in turn and sends them requests, over a connection to each or by Ray's calls.

    It can be sent to other processes; connections and calls under way stay behind. For one thread.

    Attributes:
        membership: the pool's members, who may change at any time (_membership.py).
        timeout_s: seconds that a single call of an actor may take before it is taken to hang, > 0.
        secret: what the actors' servers want to see first.
    """

    membership: MembershipReader
    timeout_s: float
    secret: bytes = field(repr=False)
    _turn: int = 0
    _connections: dict[int, Connection] = field(default_factory=dict)  # by the actor's number
    _unreachable: dict[int, float] = field(default_factory=dict)  # by number: when its server could not be reached
    _broken: Counter[int] = field(default_factory=Counter)  # connections in a row that broke before their first answer
    _lost: dict[int, float] = field(default_factory=dict)  # by number: when the actor was lost
    _in_flight: list[ray.ObjectRef] = field(default_factory=list)  # Ray's calls
    _is_congested: bool = False  # a wait of _QUEUE_WAIT_S was in vain, and no answer has come since

    def __getstate__(self) -> dict[str, Any]:
        local: dict[str, Any] = {
            "_connections": {},
            "_unreachable": {},
            "_broken": Counter(),
            "_lost": {},
            "_in_flight": [],
        }
        return {**self.__dict__, **local, "_is_congested": False}

    def next_member(self) -> Member:
        """Return the next actor in turn, of those that were not lost just now if there are any."""
        members = self.membership.members()
        for gone in [n for n, each in self._connections.items() if n not in members and each.n_wanted == 0]:
            self._connections.pop(gone).close()
        self._turn += 1
        numbers = sorted(members)
        candidates = [number for number in numbers if not self.is_lost(number)] or numbers
        number = candidates[self._turn % len(candidates)]
        return Member(number, members[number])

    def first_responsive(self, timeout_s: float) -> Member:
        """Return the first actor that answers a call, waiting for those that are starting again.

        GetTimeoutError: none answers in time. RayError: none ever will.
        """
        first = self.next_member()
        members = {first.number: first.actor, **self.membership.members()}
        calls = {
            actor.status.options(max_task_retries=-1).remote(): Member(number, actor)
            for number, actor in members.items()
        }
        deadline, waiting = time.monotonic() + timeout_s, list(calls)
        while True:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                raise GetTimeoutError
            try:
                ray.get(ready[0])
            except RayError:
                if not waiting:
                    raise
            else:
                member = calls[ready[0]]
                self._lost.pop(member.number, None)
                return member

    def mark_lost(self, member: Member) -> None:
        """Pass this actor over for a while."""
        self._lost[member.number] = time.monotonic()

    def is_lost(self, number: int) -> bool:
        """Return True if the actor of this number was marked as lost just now."""
        return time.monotonic() - self._lost.get(number, -math.inf) < _LOST_S

    def connection(self, member: Member) -> Connection | None:
        """Return the connection to an actor once it has room for a request; None where Ray's calls must do.

        ConnectionLost: the connection broke during the wait for room.
        """
        if member.number not in self._connections:
            if time.monotonic() - self._unreachable.get(member.number, -math.inf) < _UNREACHABLE_S:
                return None
            try:
                address = ray.get(member.actor.address.remote(), timeout=_ADDRESS_WAIT_S)
            except RayError:  # it may be starting again
                self.mark_lost(member)
                return None
            try:
                self._connections[member.number] = Connection(address, self.secret)
            except ConnectionLost as error:
                self._mark_unreachable(member, f"at {address}: {error}")
                return None
        connection = self._connections[member.number]
        if connection.n_pending >= _MAX_IN_FLIGHT and not self._is_congested:
            try:
                self._is_congested = not connection.receive(min(_QUEUE_WAIT_S, self.timeout_s))
            except ConnectionLost:
                self.disconnect(member, connection)
                raise
        return connection

    def disconnect(self, member: Member, connection: Connection | None) -> None:
        """Close a connection that is of no more use.

        Args:
            member: the actor at its other end.
            connection: the connection; the actor may have a newer one, which stays. None: nothing to do.
        """
        if connection is None:
            return
        if self._connections.get(member.number) is connection:
            del self._connections[member.number]
            self._broken[member.number] = 0 if connection.has_answered else self._broken[member.number] + 1
            if self._broken[member.number] >= _MAX_BROKEN:
                self._broken[member.number] = 0
                self._mark_unreachable(member, f"that lives to its first answer, of {_MAX_BROKEN}")
        connection.close()

    def _mark_unreachable(self, member: Member, why: str) -> None:
        self._unreachable[member.number] = time.monotonic()
        _log.warning("no direct line to circuit actor %d %s; Ray's calls do", member.number, why)

    def call(self, request: CircuitRequest, member: Member) -> ray.ObjectRef:
        """Send a request by Ray's call; where too many are under way, wait for one of them first.

        Args:
            request: the circuits.
            member: the actor that is to answer.

        Returns:
            The reference of the answer.
        """
        if len(self._in_flight) >= _MAX_IN_FLIGHT * len(self.membership.members()) and not self._is_congested:
            ready, self._in_flight = ray.wait(
                self._in_flight, num_returns=1, timeout=min(_QUEUE_WAIT_S, self.timeout_s)
            )
            self._is_congested = not ready
        answer = member.actor.answer.remote(request)
        self._in_flight.append(answer)
        return answer

    def mark_answered(self, answer: ray.ObjectRef | None) -> None:
        """Note that an answer is here: by this call of Ray's, or by a connection where it is None."""
        self._is_congested = False
        if answer in self._in_flight:
            self._in_flight.remove(answer)
