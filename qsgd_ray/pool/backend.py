"""The circuit pool as a training worker sees it: circuits in, cut over the actors, the answers in their order out.

Actors die, hang and come back; circuits are pure, so a part that was lost is asked again, and the answer is the same
bits whoever gives it, however the batch was cut.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from torch import Tensor

from qsgd_ray.circuits.auto import AutoBackend
from qsgd_ray.circuits.backends import Answered, Pending, Sampling
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError, CircuitsLost
from qsgd_ray.circuits.kinds import Readout
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.pool.answer_cache import AnswerCache
from qsgd_ray.pool.asked import Asked
from qsgd_ray.pool.door import Answer, Line, LineBroken
from qsgd_ray.pool.metrics import PoolMetrics
from qsgd_ray.pool.roster import RosterView

# A part is worth a call of its own from so much work on: there and back takes a millisecond or two.
PART_S = 2e-3
# A part whose actor hangs, or is gone for good, is asked again, this often in all.
ATTEMPTS = 4
# How long an actor may take to say how long it has been at work; a process that simulates does so beside its work.
HEALTH_S = 5.0
# Calls under way to one actor, at most: two keep it busy, more only wait there.
IN_FLIGHT = 4
# How long to wait for the address of an actor's door.
DOOR_S = 1.0
# A door that cannot be reached is tried again after so long; until then Ray's calls do.
SHUT_S = 60.0
# An actor that was lost, or whose door is silent, is passed over for so long while others are there: with its node gone
# it may come back elsewhere only when there is a new one.
PASSED_OVER_S = 10.0
# A part takes at most this share of the timeout, so that a long batch is not taken to hang.
PART_OF_TIMEOUT = 0.1
# How often to look whether an actor has started again, and how long that may take.
START_S, LONGEST_START_S = 0.2, 15.0

log = logging.getLogger(__name__)


def longest_wait_s(timeout_s: float) -> float:
    """For how long an answer is waited for at most, whatever happens: then it is `CircuitsLost`."""
    return ATTEMPTS * (timeout_s + LONGEST_START_S)


class Member(NamedTuple):
    """An actor of the pool and its number on the roster."""

    number: int
    actor: Any


@dataclass
class PoolBackend:
    """A `CircuitBackend` on the pool's actors, which can be sent to other processes; it samples where it is asked to.

    Who these actors are may change at any time (roster.py). A batch is cut over them by what its circuits were measured
    to take, at first by what they are predicted to. It travels by a direct line to each actor (door.py), or by Ray's
    calls where there is none. Exact answers are kept, up to 64 MiB of them in a process, and not asked for again.
    `secret`: what opens the actors' doors.
    """

    roster: RosterView
    timeout_s: float
    secret: bytes = field(repr=False)
    sampling: Sampling | None = None
    _turn: int = 0
    _seconds: dict[bytes, float] = field(default_factory=dict)  # a circuit of a kind, as measured
    _lines: dict[int, Line] = field(default_factory=dict)  # by the actor's number
    _shut: dict[int, float] = field(default_factory=dict)  # doors that could not be reached, and when
    _lost: dict[int, float] = field(default_factory=dict)  # actors that were lost, and when
    _in_flight: list[ray.ObjectRef] = field(default_factory=list)
    _cache: AnswerCache = field(default_factory=AnswerCache)

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        """Send the circuits to the actors whose turn it is; returns at once, but for calls beyond `IN_FLIGHT`."""
        # A copy of our own: it is kept for the cache, and for actors that are lost.
        angles = np.array(angles_bdnr.to(torch.float64).numpy(force=True), order="C")
        keys = None if keys_b is None else keys_b.cpu().numpy()
        asked = Asked(spec, angles, readout, keys, self.sampling, len(angles))
        kept = None if self.sampling is not None else self._cache.get(asked)
        PoolMetrics.here().asked(len(angles), kept=kept is not None)
        if kept is not None:
            return Answered(kept, busy_s=0.0)
        return PoolPending(self, asked, [_Part(self, part) for part in asked.parts(self._n_parts(asked))])

    def sampled(self, sampling: Sampling) -> PoolBackend:
        """The same actors, answering by measurements, or under noise."""
        return PoolBackend(self.roster, self.timeout_s, self.secret, sampling)

    def __getstate__(self) -> dict[str, Any]:
        # What this process has asked and kept stays here.
        own = {"_lines": {}, "_shut": {}, "_lost": {}, "_in_flight": [], "_cache": AnswerCache()}
        return {**self.__dict__, **own}

    def next_member(self) -> Member:
        """The one whose turn it is, of those that were not lost just now, if there are any."""
        members = self.roster.members()
        for gone in [n for n, line in self._lines.items() if n not in members and line.under_way == 0]:
            self._lines.pop(gone).close()
        self._turn += 1
        numbers = sorted(members)
        there = [number for number in numbers if not self.is_lost(number)] or numbers
        number = there[self._turn % len(there)]
        return Member(number, members[number])

    def any_member(self) -> Member:
        """The first that answers. GetTimeoutError: none does within the timeout; RayError: none ever will."""
        first = self.next_member()
        members = {first.number: first.actor, **self.roster.members()}
        asked = {actor.running_s.remote(): Member(number, actor) for number, actor in members.items()}
        deadline, waiting = time.monotonic() + self.timeout_s, list(asked)
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
        """To this actor; None where there is none at once: it may be starting again."""
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
                self._shut[member.number] = time.monotonic()
                log.warning(
                    "no direct line to circuit actor %d at %s: %s; Ray's calls do", member.number, address, error
                )
                return None
        line = self._lines[member.number]
        if line.under_way >= IN_FLIGHT:
            line.next(self.timeout_s)
        return line

    def hang_up(self, member: Member, line: Line | None) -> None:
        """This line to it is of no use any more; it may have another one by now."""
        if line is not None and self._lines.get(member.number) is line:
            del self._lines[member.number]
        if line is not None:
            line.close()

    def call(self, asked: Asked, member: Member) -> ray.ObjectRef:
        """Ask by Ray; waits for an answer to come where too many are under way."""
        if len(self._in_flight) >= IN_FLIGHT * len(self.roster.members()):
            _, self._in_flight = ray.wait(self._in_flight, num_returns=1, timeout=self.timeout_s)
        answer = member.actor.answer.remote(asked)
        self._in_flight.append(answer)
        return answer

    def arrived(self, answer: ray.ObjectRef | None, asked: Asked, busy_s: float) -> None:
        """An answer is here, that took the actor so long."""
        if answer in self._in_flight:
            self._in_flight.remove(answer)
        measured = busy_s / max(1, len(asked.angles_bdnr))
        self._seconds[asked.kind] = 0.8 * self._seconds.get(asked.kind, measured) + 0.2 * measured

    def keep(self, asked: Asked, answer: Tensor) -> None:
        """For whoever asks the same again."""
        if self.sampling is None:
            self._cache.put(asked, answer)

    def _n_parts(self, asked: Asked) -> int:
        batch = len(asked.angles_bdnr)
        if batch <= 1:
            return 1
        most = min(len(self.roster.members()), batch)
        if (measured := self._seconds.get(asked.kind)) is not None:
            work_s = batch * measured
        else:
            try:
                picked = AutoBackend().pick(asked.spec, batch, asked.readout)
            except CircuitMemoryError:  # too large here; the actors see for themselves
                return most
            work_s = 1e-6 * batch * picked.predicted_us[picked.name]
        least = math.ceil(work_s / (PART_OF_TIMEOUT * self.timeout_s))
        return min(batch, max(1, least, min(most, int(work_s / PART_S))))


class PoolPending:
    """Answers on their way."""

    def __init__(self, pool: PoolBackend, asked: Asked, parts: Sequence[_Part]) -> None:
        self._pool = pool
        self._asked = asked
        self._parts = parts
        self._answer: Tensor | None = None

    def result(self) -> Tensor:
        """(batch, width) float64. CircuitError: an actor refused. CircuitsLost: none answered."""
        if self._answer is None:
            answers = [part.result() for part in self._parts]
            self._answer = answers[0] if len(answers) == 1 else torch.cat(answers)
            self._pool.keep(self._asked, self._answer)
        return self._answer

    @property
    def busy_s(self) -> float:
        """Seconds that actors worked for it."""
        return sum(part.busy_s for part in self._parts)


class _Part:
    """Circuits asked of one actor, and of others after it where it is lost."""

    def __init__(self, pool: PoolBackend, asked: Asked) -> None:
        self._pool = pool
        self._asked = asked
        self.busy_s = 0.0
        self._send(pool.next_member())

    def _send(self, member: Member) -> None:
        self._member = member
        self._line: Line | None = None
        self._answer: ray.ObjectRef | None = None
        line = None
        try:
            if (line := self._pool.line(member)) is not None:
                self._ticket = line.send(self._asked)
                self._line = line
                return
        except LineBroken:
            self._pool.hang_up(member, line)
            self._pool.lose(member)
        if self._pool.is_lost(member.number) and not self._pool.is_lost((other := self._pool.next_member()).number):
            self._send(other)
            return
        self._answer = self._pool.call(self._asked, member)

    def result(self) -> Tensor:
        why, attempts, again = "", 0, False
        longest_s = longest_wait_s(self._pool.timeout_s)
        deadline = time.monotonic() + longest_s
        lost_until: float | None = None  # actors may be lost as often as they like, for so long
        while attempts < ATTEMPTS and time.monotonic() < deadline:
            try:
                if again:
                    self._ask_again()
                values, busy_s = self._arrival(deadline)
            except RayTaskError as error:
                raise CircuitError(f"a circuit actor failed: {error.cause}") from error
            except CircuitError as error:
                raise CircuitError(f"a circuit actor failed: {error}") from error
            except _Hung as error:
                why = str(error)
            except (RayError, LineBroken) as error:
                self._pool.hang_up(self._member, self._line)
                self._pool.lose(self._member)
                why = f"a circuit actor was lost and could not be restarted: {str(error).strip().partition(chr(10))[0]}"
                if isinstance(error, ActorUnavailableError | LineBroken):
                    lost_until = lost_until or time.monotonic() + self._pool.timeout_s
                    if time.monotonic() < lost_until:
                        attempts -= 1
                        time.sleep(START_S if isinstance(error, ActorUnavailableError) else 0)
            else:
                self._pool.arrived(self._answer, self._asked, busy_s)
                self.busy_s = busy_s
                # What came by Ray's call lies in memory that all share.
                return torch.from_numpy(values if values.flags.writeable else values.copy())
            attempts += 1
            again = True
        raise CircuitsLost(f"{why} (tried for at most {longest_s:g} s)")

    def _ask_again(self) -> None:
        """Another actor, or the same once it is there: one that was just killed takes seconds to start again."""
        PoolMetrics.here().retried()
        self._pool.roster.newest()
        try:
            member = self._pool.any_member()
        except GetTimeoutError:
            raise _Hung(f"no circuit actor answered within {self._pool.timeout_s:g} s") from None
        self._send(member)

    def _arrival(self, deadline: float) -> Answer:
        """Wait for it until then as long as the actor is at work, but not for one call longer than the timeout."""
        while (arrived := self._wait()) is None:
            if time.monotonic() > deadline:
                raise _Hung(f"the circuit pool did not answer within {self._pool.timeout_s:g} s")
            if not self._at_work():
                ray.kill(self._member.actor, no_restart=False)  # a process that hangs keeps its CPUs
                self._pool.hang_up(self._member, self._line)
                raise _Hung(f"circuit actor {self._member.number} was at one call for over {self._pool.timeout_s:g} s")
        return arrived

    def _wait(self) -> Answer | None:
        """The answer, or None after the timeout."""
        if self._line is not None:
            return self._line.collect(self._ticket, self._pool.timeout_s)
        try:
            arrived: Answer = ray.get(self._answer, timeout=self._pool.timeout_s)
        except GetTimeoutError:
            return None
        return arrived

    def _at_work(self) -> bool:
        """Is the actor there, and at no call for longer than the timeout? The calls of others may be before this.

        LineBroken: it knows of no call. It started again elsewhere, and the line to where it was has not noticed yet.
        """
        try:
            running_s = ray.get(self._member.actor.running_s.remote(), timeout=min(HEALTH_S, self._pool.timeout_s))
        except GetTimeoutError:
            return False
        if running_s is None and self._line is not None:
            raise LineBroken(f"circuit actor {self._member.number} started again")
        return running_s is None or running_s < self._pool.timeout_s

    def __del__(self) -> None:
        # What is asked ahead and not needed in the end must not stay with the line for ever.
        if (line := getattr(self, "_line", None)) is not None:
            line.forget(self._ticket)


class _Hung(Exception):
    """An actor does not answer."""
