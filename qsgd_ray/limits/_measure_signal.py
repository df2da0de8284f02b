"""Compute the fading of the signal along a chain: |<Z_k>| over the positions k.

At depth 1 <Z_k> is a product of k+1 sines, so it fades exponentially; deeper circuits and rings fade too, but slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from qsgd_ray.bench.timing import one_thread
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import Limits, SignalCurve
from qsgd_ray.limits._measure_training import Trained, trained
from qsgd_ray.limits._timing import middle
from qsgd_ray.limits.rows import Row, Size
from qsgd_ray.optimizer.signals import circuit_angles

# The paper's text model has 1,000 blocks of 64 or so: one alone would leave the medians loose.
MODELS = 8


def measure(limits: Limits, curve: SignalCurve, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """Yield the row of each position, exact by the chain engine; nothing is timed."""
    spec = CircuitSpec(curve.n_qubits, curve.depth, curve.entangle)
    gradient: Tensor | None = None
    adam: Tensor | None = None
    if curve.theta == "trained":
        models = _models(limits.seed, curve.steps)
        theta, gradient, adam = (
            torch.cat([_blocks(part, curve.n_qubits) for part in parts]) for parts in zip(*models, strict=True)
        )
    else:
        generator = torch.Generator().manual_seed(limits.seed)
        theta = torch.randn(curve.draws, curve.n_qubits, generator=generator, dtype=torch.float64) * curve.theta
    with one_thread(), torch.inference_mode():
        z = chain.expectations(spec, circuit_angles(spec, theta))
    for size in sizes:
        assert isinstance(size, int)
        row: Row = {
            "engine": "chain",
            "n_qubits": curve.n_qubits,
            "depth": curve.depth,
            "entangle": curve.entangle,
            "batch": len(theta),
            "theta": str(curve.theta),
            "position": size,
            **middle(z[:, size].abs().numpy()),
        }
        if gradient is not None and adam is not None:
            moved = adam[:, size] != 0  # the embedding of a word that never occurred has no step to compare with
            ratio = (z[:, size] * gradient[:, size]).abs()[moved] / adam[:, size].abs()[moved]
            row["step_ratio"] = float(ratio.median())
        yield size, row


@cache
def _models(seed: int, steps: int) -> tuple[Trained, ...]:
    return tuple(trained(seed + number, steps) for number in range(MODELS))


def _blocks(flat: Tensor, width: int) -> Tensor:
    """Return as many whole blocks of this width as there are, (blocks, width)."""
    return flat[: len(flat) // width * width].view(-1, width)
