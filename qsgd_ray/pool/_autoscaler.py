"""Keeps a pool as large as its work wants: a thread beside the study that starts actors, ends them, and says who is in.

What it starts waits in Ray until a node can hold it, and waiting actors are what makes Ray's autoscaler add nodes. Ray
restarts what dies. Who does not answer, as an actor on its way to another node, is off the roster until it does.
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

from qsgd_ray.pool._autoscaler_policy import PoolSize
from qsgd_ray.pool._load import Load, mean_requests
from qsgd_ray.pool._membership import REFRESH_S, Roster
from qsgd_ray.pool._metrics import PoolMetrics

LOOK_S = 0.5
# Who has not answered for so long is off the roster. A process that simulates answers beside its work, if late where
# there are more processes than cores; calls that meet one that is gone are asked again elsewhere until then.
LATE_S = 20.0
# Who leaves may still be asked by readers with an older list.
LEAVE_S = 3 * REFRESH_S
# An actor that cannot even be made is replaced after so long, and after twice as long the next time.
AGAIN_S, LONGEST_AGAIN_S = 2.0, 300.0

log = logging.getLogger(__name__)


@dataclass
class _Known:
    """An actor as the keeper sees it."""

    actor: Any
    asked: ray.ObjectRef | None = None
    load: Load | None = None
    requests: float = 0.0
    answered_at: float | None = None  # None: it has not started yet
    leaves_at: float | None = None


@dataclass
class Keeper:
    """`start` makes an actor. `members`: those that are there from the start, by number."""

    start: Callable[[], Any]
    size: PoolSize
    roster: Roster
    members: dict[int, Any]
    _known: dict[int, _Known] = field(default_factory=dict)
    _next: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        now = time.monotonic()
        self._known = {number: _Known(actor) for number, actor in self.members.items()}
        self._started_at, self._pause_s = now, 0.0
        self._next = max(self._known, default=-1) + 1
        self._thread = threading.Thread(target=self._keep, name="pool keeper", daemon=True)
        self._thread.start()

    def all_answer(self) -> None:
        """Whoever has waited for the members knows that they do."""
        now = time.monotonic()
        with self._looking:
            for known in self._known.values():
                known.answered_at = now
            self._tell(self._known, now)

    def stop(self) -> list[Any]:
        """No more starts and ends; every actor that there is, those that wait for a node included."""
        self._stopped.set()
        self._thread.join()
        return [known.actor for known in self._known.values()]

    def _keep(self) -> None:
        while not self._stopped.wait(LOOK_S):
            try:
                with self._looking:
                    self.look(time.monotonic())
            except RayError:  # Ray is on its way down, or busy with a node that was lost
                continue

    def look(self, now_s: float) -> None:
        """One round: who answers, how much there is to do, who is wanted."""
        for number, known in list(self._known.items()):
            if not _ask(known, now_s):
                del self._known[number]
                self._pause_s = min(LONGEST_AGAIN_S, max(AGAIN_S, 2 * self._pause_s))
                log.warning("circuit actor %d ended for good; another one in %g s", number, self._pause_s)
        staying = {number: known for number, known in self._known.items() if known.leaves_at is None}
        wanted = self.size.wanted(now_s, sum(known.requests for known in self._known.values()))
        may_start = now_s - self._started_at >= self._pause_s
        for _ in range((wanted - len(staying)) * may_start):
            self._started_at = now_s
            self._known[self._next] = staying[self._next] = _Known(self.start())
            self._next += 1
        # The newest first; those that wait for a node are newer than those that have one.
        for number in sorted(staying, reverse=True)[: max(0, len(staying) - wanted)]:
            staying.pop(number).leaves_at = now_s
        self._tell(staying, now_s)
        for number, known in list(self._known.items()):
            if known.leaves_at is not None and _has_left(known, now_s):
                ray.kill(known.actor)
                del self._known[number]
        PoolMetrics.here().sized(len(self.members), wanted)

    def _tell(self, staying: dict[int, _Known], now_s: float) -> None:
        started = {n: known for n, known in staying.items() if known.answered_at is not None}
        there = {n: k.actor for n, k in started.items() if k.answered_at is not None and now_s - k.answered_at < LATE_S}
        # Where none answers, they are all as likely to be back.
        there = there or {number: known.actor for number, known in started.items()}
        if there and there.keys() != self.members.keys():
            self.members = there
            self.roster.write(there)


def _ask(known: _Known, now_s: float) -> bool:
    """Take its answer where there is one, and ask again; False: it will never answer."""
    if known.asked is not None and ray.wait([known.asked], timeout=0)[0]:
        try:
            load: Load = ray.get(known.asked)
            known.requests, known.load, known.answered_at = mean_requests(known.load, load), load, now_s
        except ActorDiedError:
            return False
        except RayError:  # it starts again
            known.requests = 0.0
        known.asked = None
    if known.asked is None:
        known.asked = known.actor.load.remote()
    return True


def _has_left(known: _Known, now_s: float) -> bool:
    """Is nobody served by it any more, or was nobody ever?"""
    assert known.leaves_at is not None
    return known.answered_at is None or (now_s - known.leaves_at > LEAVE_S and known.requests == 0)
