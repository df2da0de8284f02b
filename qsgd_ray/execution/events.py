"""Carry events of a running study from its workers to what shows them, in their order.

Nothing depends on it: results go to storage by themselves, and a lost event costs one line on a screen.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from qsgd_ray.config import Stage
from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import Ending, Measurement

# An actor that runs answers within milliseconds.
_ARRIVES_S = 2.0


@dataclass(frozen=True)
class Event:
    """A trial was measured, or has ended.

    Attributes:
        trial: the trial.
        measurement: the new measurement; None where it has ended.
        ending: how it has ended; None while it runs.
        reason: one line where the user's code raised: where, and what.
    """

    trial: Trial
    measurement: Measurement | None = None
    ending: Ending | None = None
    reason: str | None = None

    @property
    def stage(self) -> Stage:
        return self.trial.stage

    @property
    def arm(self) -> str:
        return self.trial.arm.name

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def seed(self) -> int:
        return self.trial.seed

    @property
    def epochs(self) -> int:
        return self.trial.epochs


class _Queue:
    """The plain class behind the actor; drops the oldest events where none are read."""

    def __init__(self, maxlen: int = 10_000) -> None:
        self._events: deque[Event] = deque(maxlen=maxlen)

    def post(self, event: Event) -> None:
        self._events.append(event)

    def drain(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events


class EventQueue:
    """A queue on a Ray actor; can be pickled and sent to other processes."""

    def __init__(self) -> None:
        self._queue: Any = ray.remote(num_cpus=0)(_Queue).remote()

    def post(self, event: Event) -> None:
        """Send an event; of a trial's end until it has arrived, as the sender may be ended by Tune right after."""
        sent = self._queue.post.remote(event)
        if event.ending is not None:
            with suppress(RayError):  # the actor is gone, or too busy
                ray.get(sent, timeout=_ARRIVES_S)

    def drain(self) -> list[Event]:
        """Return the events since the last call; none where the actor is gone."""
        try:
            events: list[Event] = ray.get(self._queue.drain.remote())
        except RayError:
            return []
        return events
