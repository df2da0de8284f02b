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
from qsgd_ray.pool.asked import Asked
from qsgd_ray.pool.door import Answer, Line, LineBroken
from qsgd_ray.pool.metrics import PoolMetrics
from qsgd_ray.pool.switchboard import Member, Switchboard

# A part whose actor hangs, or is gone for good, is asked again, this often in all.
ATTEMPTS = 4
# How long an actor may take to say how long it has been at work; a process that simulates does so beside its work.
HEALTH_S = 5.0
# How often to look whether an actor has started again, and how long that may take.
START_S, LONGEST_START_S = 0.2, 15.0


def longest_wait_s(timeout_s: float) -> float:
    """For how long an answer is waited for at most, whatever happens: then it is `CircuitsLost`."""
    return ATTEMPTS * (timeout_s + LONGEST_START_S)


class Part:
    """Circuits asked of one actor, and of others after it where it is lost. `busy_s`: how long the one that answered
    worked."""

    def __init__(self, actors: Switchboard, asked: Asked) -> None:
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

    def result(self) -> Tensor:
        why, attempts, again = "", 0, False
        longest_s = longest_wait_s(self._actors.timeout_s)
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
                self._actors.hang_up(self._member, self._line)
                self._actors.lose(self._member)
                why = f"a circuit actor was lost and could not be restarted: {str(error).strip().partition(chr(10))[0]}"
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
        raise CircuitsLost(f"{why} (tried for at most {longest_s:g} s)")

    def _ask_again(self) -> None:
        """Another actor, or the same once it is there: one that was just killed takes seconds to start again."""
        PoolMetrics.here().retried()
        self._actors.roster.newest()
        try:
            member = self._actors.any_member()
        except GetTimeoutError:
            raise _Hung(f"no circuit actor answered within {self._actors.timeout_s:g} s") from None
        self._send(member)

    def _arrival(self, deadline: float) -> Answer:
        """Wait for it until then as long as the actor is at work, but not for one call longer than the timeout."""
        while (arrived := self._wait()) is None:
            if time.monotonic() > deadline:
                raise _Hung(f"the circuit pool did not answer within {self._actors.timeout_s:g} s")
            if not self._at_work():
                ray.kill(self._member.actor, no_restart=False)  # a process that hangs keeps its CPUs
                self._actors.hang_up(self._member, self._line)
                raise _Hung(
                    f"circuit actor {self._member.number} was at one call for over {self._actors.timeout_s:g} s"
                )
        return arrived

    def _wait(self) -> Answer | None:
        """The answer, or None after the timeout."""
        if self._line is not None:
            return self._line.collect(self._ticket, self._actors.timeout_s)
        try:
            arrived: Answer = ray.get(self._answer, timeout=self._actors.timeout_s)
        except GetTimeoutError:
            return None
        return arrived

    def _at_work(self) -> bool:
        """Is the actor there, and at no call for longer than the timeout? The calls of others may be before this.

        LineBroken: it knows of no call. It started again elsewhere, and the line to where it was has not noticed yet.
        """
        try:
            running_s = ray.get(self._member.actor.running_s.remote(), timeout=min(HEALTH_S, self._actors.timeout_s))
        except GetTimeoutError:
            return False
        if running_s is None and self._line is not None:
            raise LineBroken(f"circuit actor {self._member.number} started again")
        return running_s is None or running_s < self._actors.timeout_s

    def __del__(self) -> None:
        # What is asked ahead and not needed in the end must not stay with the line for ever.
        if (line := getattr(self, "_line", None)) is not None:
            line.forget(self._ticket)


class _Hung(Exception):
    """An actor does not answer."""
