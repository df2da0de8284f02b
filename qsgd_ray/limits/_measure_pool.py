"""Measure the seconds until a pool answers, over actors and batches.

On a private Ray of this machine: the network is loopback, and more actors than cores share them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from qsgd_ray.bench.timing import one_thread
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import Limits, PoolCurve
from qsgd_ray.execution.connection import private_ray
from qsgd_ray.limits._timing import Call, in_turns, spread
from qsgd_ray.limits.rows import Row, Size
from qsgd_ray.pool.pool import CircuitPool

TIMEOUT_S, START_S = 60.0, 120.0
CPUS = 1.0  # of an actor


def measure(limits: Limits, curve: PoolCurve, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """Yield the rows of each number of actors in turn; its batches alternate with the same batches in this process."""
    pairs = [size for size in sizes if isinstance(size, tuple)]
    spec = CircuitSpec(curve.n_qubits, curve.depth, curve.entangle)
    actors = sorted({n for n, _ in pairs})
    with private_ray(n_cpus=max(actors) + 1), one_thread():
        for n_actors in actors:
            batches = [batch for n, batch in pairs if n == n_actors]
            yield from _measured(spec, n_actors, batches, limits.seed, limits.budget_s)


def _measured(
    spec: CircuitSpec, n_actors: int, batches: list[int], seed: int, budget_s: float
) -> Iterator[tuple[Size, Row]]:
    generator = torch.Generator().manual_seed(seed)
    pool = CircuitPool(n_actors, CPUS, TIMEOUT_S)
    try:
        pool.wait_until_ready(START_S)
        remote, home = pool.backend(), AutoBackend()
        calls: dict[str, Call] = {}
        for batch in batches:
            angles = torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64)
            calls[f"pool {batch}"] = lambda angles=angles: remote.clear_cache().submit(spec, angles).result()  # type: ignore[misc]
            calls[f"home {batch}"] = lambda angles=angles: home.submit(spec, angles).result()  # type: ignore[misc]
        seconds = in_turns(calls, budget_s)
    finally:
        pool.close()
    for batch in batches:
        row: Row = {
            "per": "call",
            "engine": AutoBackend().pick(spec, batch).name,
            "n_qubits": spec.n_qubits,
            "depth": spec.depth,
            "entangle": spec.entangle,
            "batch": batch,
            "n_actors": n_actors,
            "beside_s": spread(seconds[f"home {batch}"])["low_s"],
            **spread(seconds[f"pool {batch}"]),
        }
        yield (n_actors, batch), row
