"""What is going on, told by whoever does it and read by whoever watches: events in, events out in their order.

Nothing depends on it: results go to storage by themselves, and a lost event costs a line on a screen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from qsgd_ray.outcome import Ending, Measurement
from qsgd_ray.trial import Trial


@dataclass(frozen=True)
class Event:
    """A trial has been measured (`measurement`) or has ended (`ending`)."""

    stage: str
    arm: str
    number: int
    seed: int
    epochs: int
    measurement: Measurement | None = None
    ending: Ending | None = None

    @classmethod
    def of(cls, trial: Trial, measurement: Measurement | None = None, ending: Ending | None = None) -> Event:
        return cls(trial.stage, trial.arm.name, trial.number, trial.seed, trial.epochs, measurement, ending)


class _Board:
    """The plain class behind the actor; forgets the oldest where nobody reads."""

    def __init__(self, keeps: int = 10_000) -> None:
        self._events: deque[Event] = deque(maxlen=keeps)

    def post(self, event: Event) -> None:
        self._events.append(event)

    def drain(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events


class Bulletin:
    """A board on a Ray actor; can be sent to other processes."""

    def __init__(self) -> None:
        self._board: Any = ray.remote(num_cpus=0)(_Board).remote()

    def post(self, event: Event) -> None:
        """Told and not waited for."""
        self._board.post.remote(event)

    def drain(self) -> list[Event]:
        """All that came since the last call; nothing where the board is gone."""
        try:
            events: list[Event] = ray.get(self._board.drain.remote())
        except RayError:
            return []
        return events
