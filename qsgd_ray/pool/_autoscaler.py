"""Keep a pool as large as its work needs: a thread beside the study starts actors, ends them and publishes the members.

An actor that it starts waits in Ray until a node can hold it; waiting actors are what makes Ray's autoscaler add nodes.
Ray restarts an actor that dies. An actor that does not answer, such as one on its way to another node, is no member
until it does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from qsgd_ray.pool._autoscaler_policy import ScalingPolicy
from qsgd_ray.pool._load import Load, mean_requests
from qsgd_ray.pool._membership import REFRESH_S, Membership
from qsgd_ray.pool._metrics import pool_metrics

_PERIOD_S = 0.5
# An actor that has not answered for so long is no member. One that simulates answers beside its work, though late where
# there are more processes than cores; calls that meet one that is gone are sent elsewhere until then.
_SILENT_S = 20.0
# Readers with an older list may still send requests to an actor that leaves.
_LEAVE_S = 3 * REFRESH_S
# An actor that cannot even be made is replaced after so long, and after twice as long the next time.
_REPLACE_S, _MAX_REPLACE_S = 2.0, 300.0

_log = logging.getLogger(__name__)


@dataclass
class _ActorRecord:
    """An actor as the autoscaler sees it."""

    actor: Any
    load_call: ray.ObjectRef | None = None  # under way
    load: Load | None = None
    requests: float = 0.0  # mean number between the last two readings
    answered_at: float | None = None  # None: it has not started yet
    leaves_at: float | None = None  # None: it stays


@dataclass
class Autoscaler:
    """A thread that grows and shrinks a pool.

    Attributes:
        start: makes an actor and returns its handle.
        policy: how many actors are wanted.
        membership: where members are published.
        members: actors that exist from the start, by number; later, the members last published.
    """

    start: Callable[[], Any]
    policy: ScalingPolicy
    membership: Membership
    members: dict[int, Any]
    _actors: dict[int, _ActorRecord] = field(default_factory=dict)
    _next_number: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        now = time.monotonic()
        self._actors = {number: _ActorRecord(actor) for number, actor in self.members.items()}
        self._last_start_at, self._pause_s = now, 0.0
        self._next_number = max(self._actors, default=-1) + 1
        self._thread = threading.Thread(target=self._run, name="pool autoscaler", daemon=True)
        self._thread.start()

    def mark_all_ready(self) -> None:
        """Count all actors as answering now: the caller has waited for their first answers."""
        now = time.monotonic()
        with self._lock:
            for record in self._actors.values():
                record.answered_at = now
            self._publish(self._actors, now)

    def stop(self) -> list[Any]:
        """End the thread and return all actors, those that wait for a node included."""
        self._stopped.set()
        self._thread.join()
        return [record.actor for record in self._actors.values()]

    def _run(self) -> None:
        while not self._stopped.wait(_PERIOD_S):
            try:
                with self._lock:
                    self._update(time.monotonic())
            except RayError:  # Ray is shutting down, or busy with a node that was lost
                continue

    def _update(self, now_s: float) -> None:
        """Do one round: poll the actors, compare with the policy, start and end actors, publish the members."""
        for number, record in list(self._actors.items()):
            if not _poll(record, now_s):
                del self._actors[number]
                self._pause_s = min(_MAX_REPLACE_S, max(_REPLACE_S, 2 * self._pause_s))
                _log.warning("circuit actor %d ended for good; another one in %g s", number, self._pause_s)
        staying = {number: record for number, record in self._actors.items() if record.leaves_at is None}
        wanted = self.policy.target(now_s, sum(record.requests for record in self._actors.values()))
        may_start = now_s - self._last_start_at >= self._pause_s
        for _ in range((wanted - len(staying)) * may_start):
            self._last_start_at = now_s
            self._actors[self._next_number] = staying[self._next_number] = _ActorRecord(self.start())
            self._next_number += 1
        # The newest leave first: actors that wait for a node are newer than those that have one.
        for number in sorted(staying, reverse=True)[: max(0, len(staying) - wanted)]:
            staying.pop(number).leaves_at = now_s
        self._publish(staying, now_s)
        for number, record in list(self._actors.items()):
            if record.leaves_at is not None and _may_end(record, now_s):
                ray.kill(record.actor)
                del self._actors[number]
        pool_metrics().set_size(len(self.members), wanted)

    def _publish(self, staying: dict[int, _ActorRecord], now_s: float) -> None:
        answered = {n: (r.actor, r.answered_at) for n, r in staying.items() if r.answered_at is not None}
        members = {n: actor for n, (actor, answered_at) in answered.items() if now_s - answered_at < _SILENT_S}
        # Where none answers, all are equally likely to be back.
        members = members or {n: actor for n, (actor, _) in answered.items()}
        if members and members.keys() != self.members.keys():
            self.members = members
            self.membership.publish(members)


def _poll(record: _ActorRecord, now_s: float) -> bool:
    """Read the actor's load where it has arrived, and ask for the next one. False: the actor has ended for good."""
    if record.load_call is not None and ray.wait([record.load_call], timeout=0)[0]:
        try:
            load: Load = ray.get(record.load_call)
            record.requests, record.load, record.answered_at = mean_requests(record.load, load), load, now_s
        except ActorDiedError:
            return False
        except RayError:  # it starts again
            record.requests = 0.0
        record.load_call = None
    if record.load_call is None:
        record.load_call = record.actor.load.remote()
    return True


def _may_end(record: _ActorRecord, now_s: float) -> bool:
    """Return True where an actor that leaves serves nobody any more, or never served anybody."""
    assert record.leaves_at is not None
    return record.answered_at is None or (now_s - record.leaves_at > _LEAVE_S and record.requests == 0)
