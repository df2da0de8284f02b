"""Objectives of a search: a trial's runs, one a seed, in; one number an objective out.

Quality is the interquartile mean, over the seeds, of the decision's metric on validation data. A run that diverged or
failed is not left out: it counts with the metric's worst value, of accuracy 0 (protocol, rules 6 and 12). Costs are
means over the runs that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.analysis.metric import measured_value, metric_value
from qsgd_ray.config import Metric
from qsgd_ray.config.stages import Objective
from qsgd_ray.outcome import Measurement


@dataclass(frozen=True)
class RunResult:
    """One run of a trial, as far as it has come.

    Attributes:
        value: of the metric on validation data; None where the run diverged, failed or was not measured.
        loss: of validation, nats; None likewise.
        steps: of the optimizer; 0 where nothing was measured.
        wall_s: seconds of training, the wait for circuits included.
        n_circuits: circuits simulated.
    """

    value: float | None
    loss: float | None = None
    steps: int = 0
    wall_s: float = 0.0
    n_circuits: int = 0

    @classmethod
    def from_measurement(cls, last: Measurement | None, metric: Metric, usable: bool = True) -> RunResult:
        """Return a run under way, by its last measurement.

        Args:
            last: None before the first one.
            metric: of the decision.
            usable: the run neither diverged nor failed.
        """
        if last is None:
            return cls(None)
        value, loss = (measured_value(last, metric), last.validation_loss) if usable else (None, None)
        return cls(value, loss, last.step, last.wall_s, last.n_circuits)

    @classmethod
    def from_row(cls, row: dict[str, Any], metric: Metric, usable: bool = True) -> RunResult:
        """Return a run that has ended, by its row.

        Args:
            row: of the table of trials.
            metric: of the decision.
            usable: the run neither diverged nor failed.
        """
        value, loss = (metric_value(row, "validation", metric), row["validation_loss"]) if usable else (None, None)
        return cls(value, loss, row["steps"] or 0, row["wall_s"] or 0.0, row["n_circuits"] or 0)


def quality(runs: Sequence[RunResult], metric: Metric) -> float:
    """Return the interquartile mean of the runs' values; a run without one counts with the metric's worst value.

    Args:
        runs: of one trial, one a seed; at least one.
        metric: of the decision.
    """
    values = [run.value if run.value is not None and math.isfinite(run.value) else metric.worst for run in runs]
    if len(runs) == 1:  # the usual search; for it no process imports scipy and statsmodels, which take a second
        return values[0]
    from qsgd_ray.analysis.statistics import interquartile_mean

    return float(interquartile_mean(values))


def objective_values(runs: Sequence[RunResult], objectives: Sequence[Objective], metric: Metric) -> list[float | None]:
    """Return one number an objective.

    Args:
        runs: of one trial, one a seed; at least one.
        objectives: `quality` (in the metric's unit), `step_time` (seconds a step) or `circuits` (circuits a step).
        metric: of the decision.

    Returns:
        Numbers in the order of the objectives; a cost is None where no run was measured.
    """
    measured = [run for run in runs if run.steps]
    values: dict[Objective, float | None] = {"quality": quality(runs, metric), "step_time": None, "circuits": None}
    if measured:
        values["step_time"] = float(np.mean([run.wall_s / run.steps for run in measured]))
        values["circuits"] = float(np.mean([run.n_circuits / run.steps for run in measured]))
    return [values[objective] for objective in objectives]
