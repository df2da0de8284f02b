"""The pool's actors as one process reaches them: whose turn it is, who was lost, a line to each."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError

from qsgd_ray.pool._membership import RosterView
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import Line, LineBroken

# Calls under way to one actor, at most: two keep it busy, more only wait there.
IN_FLIGHT = 4
# For room among them is waited at most so long, and not again before an answer came: then more are sent all the same.
ROOM_S = 30.0
# How long to wait for the address of an actor's door.
DOOR_S = 1.0
# A door that cannot be reached is tried again after so long; until then Ray's calls do.
SHUT_S = 60.0
# So many lines to it in a row that broke before their first answer, and it is taken not to be reached: whoever stands
# between may let everybody in and hang up.
VAIN_LINES = 3
# An actor that was lost, or whose door is silent, is passed over for so long while others are there: with its node gone
# it may come back elsewhere only when there is a new one.
PASSED_OVER_S = 10.0

log = logging.getLogger(__name__)


class Member(NamedTuple):
    """An actor of the pool and its number on the roster."""

    number: int
    actor: Any


@dataclass
class Switchboard:
    """Reaches the actors of a pool, who may change at any time (_membership.py); can be sent to other processes.

    By a connection to each (_transport.py), or by Ray's calls where there is none. `timeout_s`: how long an actor may
    be at one call. `secret`: what opens the actors' doors.
    """

    roster: RosterView
    timeout_s: float
    secret: bytes = field(repr=False)
    _turn: int = 0
    _lines: dict[int, Line] = field(default_factory=dict)  # by the actor's number
    _shut: dict[int, float] = field(default_factory=dict)  # doors that could not be reached, and when
    _vain: Counter[int] = field(default_factory=Counter)  # lines in a row that broke before their first answer
    _lost: dict[int, float] = field(default_factory=dict)  # actors that were lost, and when
    _in_flight: list[ray.ObjectRef] = field(default_factory=list)
    _is_late: bool = False  # for room was waited in vain

    def __getstate__(self) -> dict[str, Any]:
        # Lines and calls of this process stay here.
        own = {"_lines": {}, "_shut": {}, "_vain": Counter(), "_lost": {}, "_in_flight": [], "_is_late": False}
        return {**self.__dict__, **own}

    def next_member(self) -> Member:
        """The one whose turn it is, of those that were not lost just now, if there are any."""
        members = self.roster.members()
        for gone in [n for n, line in self._lines.items() if n not in members and line.wanted == 0]:
            self._lines.pop(gone).close()
        self._turn += 1
        numbers = sorted(members)
        there = [number for number in numbers if not self.is_lost(number)] or numbers
        number = there[self._turn % len(there)]
        return Member(number, members[number])

    def any_member(self, timeout_s: float) -> Member:
        """The first that answers; one that starts again is waited for. GetTimeoutError: none does in time; RayError:
        none ever will."""
        first = self.next_member()
        members = {first.number: first.actor, **self.roster.members()}
        asked = {
            actor.at_work.options(max_task_retries=-1).remote(): Member(number, actor)
            for number, actor in members.items()
        }
        deadline, waiting = time.monotonic() + timeout_s, list(asked)
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
                found = asked[ready[0]]
                self._lost.pop(found.number, None)
                return found

    def lose(self, member: Member) -> None:
        """It was lost: others come first for a while."""
        self._lost[member.number] = time.monotonic()

    def is_lost(self, number: int) -> bool:
        """Was it, just now?"""
        return time.monotonic() - self._lost.get(number, -math.inf) < PASSED_OVER_S

    def line(self, member: Member) -> Line | None:
        """To this actor, with room for a question; None where there is none in seconds: it may be starting again.
        LineBroken: while it was waited for room."""
        if member.number not in self._lines:
            if time.monotonic() - self._shut.get(member.number, -math.inf) < SHUT_S:
                return None
            try:
                address = ray.get(member.actor.door.remote(), timeout=DOOR_S)
            except RayError:
                self.lose(member)
                return None
            try:
                self._lines[member.number] = Line(address, self.secret)
            except LineBroken as error:
                self._shut_out(member, f"at {address}: {error}")
                return None
        line = self._lines[member.number]
        if line.under_way >= IN_FLIGHT and not self._is_late:
            try:
                self._is_late = not line.next(min(ROOM_S, self.timeout_s))
            except LineBroken:
                self.hang_up(member, line)
                raise
        return line

    def hang_up(self, member: Member, line: Line | None) -> None:
        """This line to it is of no use any more; it may have another one by now."""
        if line is None:
            return
        if self._lines.get(member.number) is line:
            del self._lines[member.number]
            self._vain[member.number] = 0 if line.has_answered else self._vain[member.number] + 1
            if self._vain[member.number] >= VAIN_LINES:
                self._vain[member.number] = 0
                self._shut_out(member, f"that lives to its first answer, of {VAIN_LINES}")
        line.close()

    def _shut_out(self, member: Member, why: str) -> None:
        self._shut[member.number] = time.monotonic()
        log.warning("no direct line to circuit actor %d %s; Ray's calls do", member.number, why)

    def call(self, asked: CircuitRequest, member: Member) -> ray.ObjectRef:
        """Ask by Ray; waits for an answer to come where too many are under way."""
        if len(self._in_flight) >= IN_FLIGHT * len(self.roster.members()) and not self._is_late:
            ready, self._in_flight = ray.wait(self._in_flight, num_returns=1, timeout=min(ROOM_S, self.timeout_s))
            self._is_late = not ready
        answer = member.actor.answer.remote(asked)
        self._in_flight.append(answer)
        return answer

    def arrived(self, answer: ray.ObjectRef | None) -> None:
        """An answer is here, by Ray's call or by a line."""
        self._is_late = False
        if answer in self._in_flight:
            self._in_flight.remove(answer)
