"""How a trial of the search is judged: its runs, one a seed, in; one number an objective out.

Quality is the interquartile mean of validation accuracy over the seeds; a run that diverged or failed is no run left
out, it counts 0 (protocol, rules 6 and 12). What costs, is the mean over the runs that were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.config.stages import Objective
from qsgd_ray.outcome import Measurement


@dataclass(frozen=True)
class RunResult:
    """`accuracy` and `loss`: of validation, None where it came to nothing. `steps`: 0 where nothing was measured."""

    accuracy: float | None
    loss: float | None = None
    steps: int = 0
    wall_s: float = 0.0
    n_circuits: int = 0

    @classmethod
    def at(cls, last: Measurement | None, usable: bool = True) -> RunResult:
        """A run under way, by its last measurement. `usable`: it neither diverged nor failed."""
        if last is None:
            return cls(None)
        accuracy, loss = (last.validation_accuracy, last.validation_loss) if usable else (None, None)
        return cls(accuracy, loss, last.step, last.wall_s, last.n_circuits)

    @classmethod
    def of(cls, row: dict[str, Any], usable: bool = True) -> RunResult:
        """A run that has ended, by its row."""
        accuracy, loss = (row["validation_accuracy"], row["validation_loss"]) if usable else (None, None)
        return cls(accuracy, loss, row["steps"] or 0, row["wall_s"] or 0.0, row["n_circuits"] or 0)


def quality(runs: Sequence[RunResult]) -> float:
    """A fraction of one."""
    if len(runs) == 1:  # the usual search; for it no process imports scipy and statsmodels, which take a second
        return runs[0].accuracy or 0.0
    from qsgd_ray.analysis.statistics import interquartile_mean

    return float(interquartile_mean([run.accuracy or 0.0 for run in runs]))


def judged(runs: Sequence[RunResult], objectives: Sequence[Objective]) -> list[float | None]:
    """One number an objective: `step_time` in seconds, `circuits` a step; None where no run was measured."""
    measured = [run for run in runs if run.steps]
    found: dict[Objective, float | None] = {"quality": quality(runs), "step_time": None, "circuits": None}
    if measured:
        found["step_time"] = float(np.mean([run.wall_s / run.steps for run in measured]))
        found["circuits"] = float(np.mean([run.n_circuits / run.steps for run in measured]))
    return [found[objective] for objective in objectives]
