"""What the circuit pool does, for Prometheus: counts and times in, Ray's metrics out (ray.util.metrics).

One object a process; a process that is no Ray worker has nothing to tell to, and none is needed. Counting with Ray
takes 10 microseconds each time, so what a training worker counts is told once a second.
"""

from __future__ import annotations

import time
from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3, 10, 30]
BATCHES = [1, 4, 16, 64, 256, 1024, 4096, 16384]
TELL_S = 1.0


class PoolMetrics:
    """Of the training workers' side, of an actor's, and of the keeper's."""

    def __init__(self) -> None:
        self._circuits = Counter("qsgd_circuits_asked", "Circuits asked of the pool or its cache.")
        self._batch = Histogram("qsgd_circuit_batch", "Circuits in a batch.", boundaries=BATCHES)
        self._wait = Histogram("qsgd_circuit_queue_s", "Seconds that a part waited for its actor.", boundaries=SECONDS)
        self._hits = Counter("qsgd_circuit_cache_hits", "Batches that were answered by the cache.")
        self._retries = Counter("qsgd_circuit_retries", "Parts that were asked again since their actor was lost.")
        self._simulated = Counter("qsgd_circuits_simulated", "Circuits that an actor answered.")
        self._actors = Gauge("qsgd_circuit_actors", "Circuit actors that answer.")
        self._wanted = Gauge("qsgd_circuit_actors_wanted", "Circuit actors that the work wants.")
        self._busy = Gauge("qsgd_circuit_actor_busy", "Share of its life that an actor has simulated.")
        self._n_circuits = self._n_hits = 0
        self._batches: list[int] = []
        self._told_at = 0.0

    @classmethod
    def here(cls) -> PoolMetrics:
        """This process's."""
        return _here()

    def asked(self, batch: int, *, kept: bool) -> None:
        """A batch was submitted; `kept`: the cache answers it."""
        self._n_circuits += batch
        self._n_hits += kept
        self._batches.append(batch)
        if time.monotonic() - self._told_at > TELL_S:
            self.tell()

    def tell(self) -> None:
        """To Ray, what was counted since the last time."""
        self._told_at = time.monotonic()
        for counter, count in ((self._circuits, self._n_circuits), (self._hits, self._n_hits)):
            if count:  # Ray refuses 0
                counter.inc(count)
        for batch in self._batches:
            self._batch.observe(batch)
        self._n_circuits = self._n_hits = 0
        self._batches.clear()

    def retried(self) -> None:
        self._retries.inc()

    def simulated(self, batch: int, waited_s: float, busy_share: float) -> None:
        """An actor answered what had waited for its turn so long."""
        self._wait.observe(waited_s)
        if batch:
            self._simulated.inc(batch)
        self._busy.set(busy_share)

    def sized(self, actors: int, wanted: int) -> None:
        """The keeper looked."""
        self._actors.set(actors)
        self._wanted.set(wanted)


@cache
def _here() -> PoolMetrics:
    return PoolMetrics()
