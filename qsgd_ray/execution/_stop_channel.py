"""Where a trial's workers meet whoever may stop it: measurements come up, decisions go down, one at a time.

A trial that is stopped this way ends by itself and gives its workers back at once; one that Tune ends from outside may
leave Ray Train's placement group behind (ray issue 54305).
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from qsgd_ray.outcome import Measurement


class _Meeting:
    """The plain class behind the actor; each side waits for the other."""

    def __init__(self) -> None:
        self._measurements: asyncio.Queue[Measurement | None] = asyncio.Queue()
        self._decisions: asyncio.Queue[bool] = asyncio.Queue()

    async def ask(self, measurement: Measurement) -> bool:
        await self._measurements.put(measurement)
        return await self._decisions.get()

    async def next(self) -> Measurement | None:
        return await self._measurements.get()

    async def decide(self, stop: bool) -> None:
        await self._decisions.put(stop)

    async def end(self) -> None:
        await self._measurements.put(None)


class StopChannel:
    """A meeting on a Ray actor without CPUs; can be sent to the workers."""

    def __init__(self) -> None:
        self._meeting: Any = ray.remote(num_cpus=0)(_Meeting).remote()

    def ask(self, measurement: Measurement) -> bool:
        """A worker's side: tell, and wait for the decision; True is stop."""
        stop: bool = ray.get(self._meeting.ask.remote(measurement))
        return stop

    def next(self) -> Measurement | None:
        """The other side: the next measurement, or None where there will be none."""
        measurement: Measurement | None = ray.get(self._meeting.next.remote())
        return measurement

    def decide(self, stop: bool) -> None:
        """Answer the measurement that `next` gave."""
        ray.get(self._meeting.decide.remote(stop))

    def end(self) -> None:
        """No measurement will come any more."""
        ray.get(self._meeting.end.remote())

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._meeting)
