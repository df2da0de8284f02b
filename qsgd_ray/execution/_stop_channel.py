"""Carry measurements from a trial's workers to its scheduler, and the decision to stop back, one at a time.

A trial that is stopped this way ends by itself and returns its workers at once. One that Tune ends from outside may
leave Ray Train's placement group behind (ray issue 54305).
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from qsgd_ray.outcome import Measurement


class _Queues:
    """Two queues, one a direction; each side waits for the other."""

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
    """The channel on a Ray actor without CPUs; can be pickled and sent to the workers."""

    def __init__(self) -> None:
        self._actor: Any = ray.remote(num_cpus=0)(_Queues).remote()

    def ask(self, measurement: Measurement) -> bool:
        """Send a measurement from a worker, and wait for the decision; True is stop."""
        stop: bool = ray.get(self._actor.ask.remote(measurement))
        return stop

    def next(self) -> Measurement | None:
        """Wait for the next measurement; None where the workers have ended."""
        measurement: Measurement | None = ray.get(self._actor.next.remote())
        return measurement

    def decide(self, stop: bool) -> None:
        """Answer the measurement that `next` gave."""
        ray.get(self._actor.decide.remote(stop))

    def end(self) -> None:
        """Say that no measurement will follow."""
        ray.get(self._actor.end.remote())

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)
