"""A part of a batch on its way: asked of one actor, and again where that one dies, hangs or is not to be reached.

Circuits are pure: the answer is the same bits whoever gives it.
"""

from __future__ import annotations

import time

import ray
import torch
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from torch import Tensor

from qsgd_ray.circuits.errors import CircuitError, CircuitsLost
from qsgd_ray.config.errors import one_line
from qsgd_ray.pool._metrics import PoolMetrics
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import Answer, AtWork, Line, LineBroken
from qsgd_ray.pool.router import Member, Switchboard

# A part whose actor hangs, or is gone for good, is asked again, this often in all.
ATTEMPTS = 4
# How long an actor may take to say how long it has been at work, and of the timeout: a process that simulates does so
# beside its work, but an engine may hold Python's lock for a whole part.
HEALTH_S, HEALTH_OF_TIMEOUT = 5.0, 0.25
# How often to look whether an actor has started again, and how long that may take.
START_S, LONGEST_START_S = 0.2, 15.0


def longest_wait_s(timeout_s: float) -> float:
    """For how long the answer of a batch is waited for at most, but for seconds: then it is `CircuitsLost`."""
    return ATTEMPTS * (timeout_s + LONGEST_START_S)


class Part:
    """Circuits asked of one actor, and of others after it where it is lost. `busy_s`: how long the one that answered
    worked."""

    def __init__(self, actors: Switchboard, asked: CircuitRequest) -> None:
        self._actors = actors
        self.asked = asked
        self.busy_s = 0.0
        self._send(actors.next_member())

    def _send(self, member: Member) -> None:
        self._member = member
        self._line: Line | None = None
        self._answer: ray.ObjectRef | None = None
        line = None
        try:
            if (line := self._actors.line(member)) is not None:
                self._ticket = line.send(self.asked)
                self._line = line
                return
        except LineBroken:
            self._actors.hang_up(member, line)
            self._actors.lose(member)
        if self._actors.is_lost(member.number):
            other = self._actors.next_member()
            if not self._actors.is_lost(other.number):
                self._send(other)
                return
        self._answer = self._actors.call(self.asked, member)

    def result(self, deadline: float) -> Tensor:
        """(circuits, width) float64. CircuitError: an actor refused. CircuitsLost: none answered until then, by
        `time.monotonic`, or after `ATTEMPTS`."""
        whys: dict[str, Exception] = {}
        attempts, again = 0, False
        lost_until: float | None = None  # actors may be lost as often as they like, for so long
        while attempts < ATTEMPTS and not (again and time.monotonic() > deadline):
            try:
                if again:
                    self._ask_again(deadline)
                values, busy_s = self._arrival(deadline)
            except RayTaskError as error:
                raise CircuitError(f"a circuit actor failed: {error.cause}") from error
            except CircuitError as error:
                raise CircuitError(f"a circuit actor failed: {error}") from error
            except _Hung as error:
                whys[str(error)] = error
            except (RayError, LineBroken) as error:
                self._actors.hang_up(self._member, self._line)
                self._actors.lose(self._member)
                # Ray's words may be pages long; the last line is the cause.
                told = one_line(error, part="last")
                whys[f"a circuit actor was lost and could not be restarted: {told}"] = error
                if isinstance(error, ActorUnavailableError | LineBroken):
                    lost_until = lost_until or time.monotonic() + self._actors.timeout_s
                    if time.monotonic() < lost_until:
                        attempts -= 1
                        time.sleep(START_S if isinstance(error, ActorUnavailableError) else 0)
            else:
                self._actors.arrived(self._answer)
                self.busy_s = busy_s
                # What came by Ray's call lies in memory that all share.
                return torch.from_numpy(values if values.flags.writeable else values.copy())
            attempts += 1
            again = True
        longest_s = longest_wait_s(self._actors.timeout_s)
        raise CircuitsLost(f"{'; '.join(whys)} (tried for at most {longest_s:g} s)") from next(reversed(whys.values()))

    def _ask_again(self, deadline: float) -> None:
        """Another actor, or the same once it is there: one that was just killed takes seconds to start again."""
        PoolMetrics.here().retried()
        self._actors.roster.newest()
        timeout_s = max(0.0, min(max(self._actors.timeout_s, LONGEST_START_S), deadline - time.monotonic()))
        try:
            member = self._actors.any_member(timeout_s)
        except GetTimeoutError:
            raise _Hung(f"no circuit actor answered within {timeout_s:g} s") from None
        self._send(member)

    def _arrival(self, deadline: float) -> Answer:
        """Wait for it until then as long as the actor is at work, but not for one call longer than the timeout."""
        timeout_s = self._actors.timeout_s
        patience_s = max(HEALTH_S, HEALTH_OF_TIMEOUT * timeout_s)
        wait_s = timeout_s
        while (arrived := self._wait(min(wait_s, deadline - time.monotonic()))) is None:
            if time.monotonic() > deadline:
                raise _Hung(f"circuit actor {self._member.number} had not answered")
            running_s = self._running_s(patience_s)
            if running_s is None or running_s >= timeout_s:
                ray.kill(self._member.actor, no_restart=False)  # a process that hangs keeps its CPUs
                self._actors.hang_up(self._member, self._line)
                silent = f"did not tell within {patience_s:g} s what it was at"
                why = silent if running_s is None else f"was at one call for over {timeout_s:g} s"
                raise _Hung(f"circuit actor {self._member.number} {why}")
            wait_s = timeout_s - running_s
        return arrived

    def _wait(self, seconds: float) -> Answer | None:
        """The answer, or None where it is not here in time."""
        if self._line is not None:
            return self._line.collect(self._ticket, max(0.0, seconds))
        try:
            arrived: Answer = ray.get(self._answer, timeout=max(0.0, seconds))
        except GetTimeoutError:
            return None
        return arrived

    def _running_s(self, patience_s: float) -> float | None:
        """For how long the actor has been at one call, which may be another's; None where it does not tell.

        LineBroken: it knows of no call, or is elsewhere; it started again, and the line to where it was has not noticed
        yet. ActorUnavailableError: it is about to.
        """
        try:
            told: AtWork = ray.get(self._member.actor.at_work.remote(), timeout=patience_s)
        except GetTimeoutError:
            return None
        if self._line is not None and (told.seconds is None or told.door != self._line.address):
            raise LineBroken(f"circuit actor {self._member.number} started again")
        return told.seconds or 0.0

    def __del__(self) -> None:
        # What is asked ahead and not needed in the end must not stay with the line for ever.
        if (line := getattr(self, "_line", None)) is not None:
            line.forget(self._ticket)


class _Hung(Exception):
    """An actor does not answer."""
