"""A study of limits in; its missing sizes measured, curve by curve, and their rows in the results out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from qsgd_ray.config import Curve, Limits
from qsgd_ray.limits import _measure_circuits as circuits
from qsgd_ray.limits import _measure_optimizer as optimizer
from qsgd_ray.limits import _measure_pool as pool
from qsgd_ray.limits import _measure_signal as signal
from qsgd_ray.limits import _measure_training as training
from qsgd_ray.limits.rows import LimitsResults, Row, Size, sizes_of


class Measured(NamedTuple):
    """What was done of a curve. `n_before`: sizes that had their row already."""

    curve: Curve
    n_now: int
    n_before: int
    seconds: float


def run_limits(limits: Limits, results: LimitsResults) -> Iterator[Measured]:
    """Measure what has no row yet. CircuitError: an engine is not there."""
    for curve in limits.curves:
        missing = results.missing(limits, curve)
        began = time.perf_counter()
        for size, row in measured(limits, curve, missing):
            results.write(limits, curve, size, row)
        yield Measured(curve, len(missing), len(sizes_of(curve)) - len(missing), time.perf_counter() - began)


def measured(limits: Limits, curve: Curve, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """The rows of these sizes of a curve."""
    if not sizes:
        return iter(())
    match curve.kind:
        case "circuits":
            return circuits.measure(limits, curve, sizes)
        case "optimizer":
            return optimizer.measure(limits, curve, sizes)
        case "training":
            return training.measure(limits, sizes)
        case "pool":
            return pool.measure(limits, curve, sizes)
        case "signal":
            return signal.measure(limits, curve, sizes)
