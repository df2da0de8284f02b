"""Counts and times of the circuit pool for Prometheus, by Ray's metrics (ray.util.metrics).

A process that is no Ray worker reports to nobody. One count takes Ray 10 microseconds, so a training worker adds its
counts up and reports them once a second.
"""

from __future__ import annotations

import time
from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

_SECONDS = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3, 10, 30]
_BATCHES = [1, 4, 16, 64, 256, 1024, 4096, 16384]
_REPORT_EVERY_S = 1.0


@cache
def pool_metrics() -> PoolMetrics:
    """Return the metrics of this process."""
    return PoolMetrics()


class PoolMetrics:
    """The metrics that one process reports: a training worker, an actor or the autoscaler."""

    def __init__(self) -> None:
        self._circuits = Counter("qsgd_circuits_asked", "Circuits asked of the pool or its cache.")
        self._batch = Histogram("qsgd_circuit_batch", "Circuits in a batch.", boundaries=_BATCHES)
        self._wait = Histogram("qsgd_circuit_queue_s", "Seconds that a part waited for its actor.", boundaries=_SECONDS)
        self._hits = Counter("qsgd_circuit_cache_hits", "Batches that were answered by the cache.")
        self._retries = Counter("qsgd_circuit_retries", "Parts that were asked again since their actor was lost.")
        self._simulated = Counter("qsgd_circuits_simulated", "Circuits that an actor answered.")
        self._actors = Gauge("qsgd_circuit_actors", "Circuit actors that answer.")
        self._wanted = Gauge("qsgd_circuit_actors_wanted", "Circuit actors that the work wants.")
        self._busy = Gauge("qsgd_circuit_actor_busy", "Share of its life that an actor has simulated.")
        self._n_circuits = self._n_hits = 0
        self._batches: list[int] = []
        self._reported_at = 0.0

    def count_batch(self, batch: int, *, cached: bool) -> None:
        """Count a batch of circuits that was submitted. `cached`: the cache answered it."""
        self._n_circuits += batch
        self._n_hits += cached
        self._batches.append(batch)
        if time.monotonic() - self._reported_at > _REPORT_EVERY_S:
            self._report()

    def _report(self) -> None:
        self._reported_at = time.monotonic()
        for counter, count in ((self._circuits, self._n_circuits), (self._hits, self._n_hits)):
            if count:  # Ray refuses 0
                counter.inc(count)
        for batch in self._batches:
            self._batch.observe(batch)
        self._n_circuits = self._n_hits = 0
        self._batches.clear()

    def count_retry(self) -> None:
        """Count a part of a batch that is sent again."""
        self._retries.inc()

    def count_answer(self, batch: int, waited_s: float, busy_share: float) -> None:
        """Count an actor's answer. `waited_s`: how long its request waited; `busy_share`: of the actor's life."""
        self._wait.observe(waited_s)
        if batch:
            self._simulated.inc(batch)
        self._busy.set(busy_share)

    def set_size(self, actors: int, wanted: int) -> None:
        """Set the number of actors that answer, and the number that the work wants."""
        self._actors.set(actors)
        self._wanted.set(wanted)
