"""A part of a batch on its way: sent to one actor, and sent again where that actor dies, hangs or cannot be reached.

Circuits are pure functions of their request, so the answer has the same bits whichever actor gives it.
"""

from __future__ import annotations

import time

import ray
import torch
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from torch import Tensor

from qsgd_ray.circuits.errors import CircuitError, CircuitsLost
from qsgd_ray.config.errors import one_line
from qsgd_ray.pool._actor import ActorStatus
from qsgd_ray.pool._connection import Connection
from qsgd_ray.pool._metrics import pool_metrics
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import Answer, ConnectionLost
from qsgd_ray.pool.router import Member, Router

# Attempts in all for a part whose actors hang or are gone for good.
ATTEMPTS = 4
# Longest wait for an actor's status, in seconds and as a share of the timeout; the longer one counts. A process that
# simulates answers beside its work, but an engine may hold Python's lock for a whole part.
_STATUS_S, _STATUS_OF_TIMEOUT = 5.0, 0.25
# Pause before a restarting actor is tried again, and the longest time that a start may take.
_RESTART_POLL_S, _LONGEST_START_S = 0.2, 15.0


def longest_wait_s(timeout_s: float) -> float:
    """Return the longest wait in seconds, give or take a few, for a batch: then it is answered or CircuitsLost."""
    return ATTEMPTS * (timeout_s + _LONGEST_START_S)


class PendingPart:
    """A part of a batch that has been sent to an actor. It is sent to others where that one is lost.

    Attributes:
        request: the circuits.
        busy_s: seconds of simulation of the actor that answered; 0 before.
    """

    def __init__(self, router: Router, request: CircuitRequest) -> None:
        self._router = router
        self.request = request
        self.busy_s = 0.0
        self._send(router.next_member())

    def _send(self, member: Member) -> None:
        self._member = member
        self._connection: Connection | None = None  # None: sent by Ray's call
        self._answer: ray.ObjectRef | None = None
        connection = None
        try:
            if (connection := self._router.connection(member)) is not None:
                self._ticket = connection.send(self.request)
                self._connection = connection
                return
        except ConnectionLost:
            self._router.disconnect(member, connection)
            self._router.mark_lost(member)
        if self._router.is_lost(member.number):
            other = self._router.next_member()
            if not self._router.is_lost(other.number):
                self._send(other)
                return
        self._answer = self._router.call(self.request, member)

    def result(self, deadline: float) -> Tensor:
        """Wait for the answer.

        Args:
            deadline: time by `time.monotonic`, in seconds, after which no more attempts are made.

        Returns:
            float64, shape (circuits, answer width).

        Raises:
            CircuitError: an actor refused the circuits.
            CircuitsLost: no actor answered by the deadline, or in `ATTEMPTS` attempts.
        """
        reasons: dict[str, Exception] = {}
        attempts, is_retry = 0, False
        free_until: float | None = None  # until then, actors that restart or move cost no attempt
        while attempts < ATTEMPTS and not (is_retry and time.monotonic() > deadline):
            try:
                if is_retry:
                    self._resend(deadline)
                values, busy_s = self._wait(deadline)
            except RayTaskError as error:
                raise CircuitError(f"a circuit actor failed: {error.cause}") from error
            except CircuitError as error:
                raise CircuitError(f"a circuit actor failed: {error}") from error
            except _Hung as error:
                reasons[str(error)] = error
            except (RayError, ConnectionLost) as error:
                self._router.disconnect(self._member, self._connection)
                self._router.mark_lost(self._member)
                cause = one_line(error, part="last")  # Ray's messages may be pages long
                reasons[f"a circuit actor was lost and could not be restarted: {cause}"] = error
                if isinstance(error, ActorUnavailableError | ConnectionLost):
                    free_until = free_until or time.monotonic() + self._router.timeout_s
                    if time.monotonic() < free_until:
                        attempts -= 1
                        time.sleep(_RESTART_POLL_S if isinstance(error, ActorUnavailableError) else 0)
            else:
                self._router.mark_answered(self._answer)
                self.busy_s = busy_s
                # The answer of a Ray call lies in shared, read-only memory.
                return torch.from_numpy(values if values.flags.writeable else values.copy())
            attempts += 1
            is_retry = True
        longest_s = longest_wait_s(self._router.timeout_s)
        raise CircuitsLost(f"{'; '.join(reasons)} (tried for at most {longest_s:g} s)") from next(
            reversed(reasons.values())
        )

    def _resend(self, deadline: float) -> None:
        """Send to another actor, or to the same one once it is back: a killed actor takes seconds to start again."""
        pool_metrics().count_retry()
        self._router.membership.refresh()
        timeout_s = max(0.0, min(max(self._router.timeout_s, _LONGEST_START_S), deadline - time.monotonic()))
        try:
            member = self._router.first_responsive(timeout_s)
        except GetTimeoutError:
            raise _Hung(f"no circuit actor answered within {timeout_s:g} s") from None
        self._send(member)

    def _wait(self, deadline: float) -> Answer:
        """Wait until the deadline while the actor is at work; end the actor where one call takes over the timeout."""
        timeout_s = self._router.timeout_s
        status_timeout_s = max(_STATUS_S, _STATUS_OF_TIMEOUT * timeout_s)
        wait_s = timeout_s
        while (answer := self._poll(min(wait_s, deadline - time.monotonic()))) is None:
            if time.monotonic() > deadline:
                raise _Hung(f"circuit actor {self._member.number} had not answered")
            call_s = self._call_s(status_timeout_s)
            if call_s is None or call_s >= timeout_s:
                ray.kill(self._member.actor, no_restart=False)  # a process that hangs keeps its CPUs
                self._router.disconnect(self._member, self._connection)
                silent = f"did not tell within {status_timeout_s:g} s what it was at"
                why = silent if call_s is None else f"was at one call for over {timeout_s:g} s"
                raise _Hung(f"circuit actor {self._member.number} {why}")
            wait_s = timeout_s - call_s
        return answer

    def _poll(self, timeout_s: float) -> Answer | None:
        """Return the answer, or None where it does not come in time."""
        if self._connection is not None:
            return self._connection.collect(self._ticket, max(0.0, timeout_s))
        try:
            answer: Answer = ray.get(self._answer, timeout=max(0.0, timeout_s))
        except GetTimeoutError:
            return None
        return answer

    def _call_s(self, timeout_s: float) -> float | None:
        """Return the seconds that the actor's present call has taken, which may be another's; None: no status in time.

        ConnectionLost: the actor has no request, or listens elsewhere. So it has started again, and this connection to
        its old place has not noticed. ActorUnavailableError: it is starting again.
        """
        try:
            status: ActorStatus = ray.get(self._member.actor.status.remote(), timeout=timeout_s)
        except GetTimeoutError:
            return None
        if self._connection is not None and (status.call_s is None or status.address != self._connection.address):
            raise ConnectionLost(f"circuit actor {self._member.number} started again")
        return status.call_s or 0.0

    def __del__(self) -> None:
        # An answer that was requested ahead and is not needed must not stay in the connection for ever.
        if (connection := getattr(self, "_connection", None)) is not None:
            connection.discard(self._ticket)


class _Hung(Exception):
    """An actor that does not answer."""
