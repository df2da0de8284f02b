"""Run a study of limits: measure the missing sizes of each curve and write a row for each."""

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
from qsgd_ray.limits.rows import LimitsResults, Row, Size, _sizes_of


class Measured(NamedTuple):
    """Summary of one curve of a run.

    Attributes:
        curve: the curve.
        n_now: sizes _measured_rows in this run.
        n_before: sizes that had their row already.
        seconds: wall seconds of this run's measurements.
    """

    curve: Curve
    n_now: int
    n_before: int
    seconds: float


def run_limits(limits: Limits, results: LimitsResults) -> Iterator[Measured]:
    """Measure every size without a row, write its row, and yield a summary of each curve.

    Args:
        limits: the study.
        results: where its rows lie.

    Raises:
        CircuitError: an engine is not installed.
    """
    for curve in limits.curves:
        missing = results.missing(limits, curve)
        began = time.perf_counter()
        for size, row in _measured_rows(limits, curve, missing):
            results.write(limits, curve, size, row)
        yield Measured(curve, len(missing), len(_sizes_of(curve)) - len(missing), time.perf_counter() - began)


def _measured_rows(limits: Limits, curve: Curve, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """Return the rows of these sizes of a curve, _measured_rows as the kind of the curve asks."""
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
