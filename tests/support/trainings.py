"""A small trial in one process, and measurements without their times."""

from __future__ import annotations

from dataclasses import replace

from qsgd_ray.config import Arm, Perturbation
from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import Measurement
from support.small_study import SMALL_TASK


def small_trial(perturbation: Perturbation | None = None, **fields) -> Trial:
    """Return a trial of three epochs on the small text task, but for the fields given."""
    return Trial(
        **{
            "study": "small",
            "stage": "confirm",
            "number": 0,
            "arm": Arm(name="a", learning_rate=1e-2, perturbation=perturbation),
            "workload": SMALL_TASK,
            "seed": 7,
            "epochs": 3,
            "workers": 1,
            "reads_test": True,
        }
        | fields
    )


def without_times(measurement: Measurement) -> Measurement:
    """Return a measurement with all that clocks and hardware decide set to zero or None."""
    seconds = dict.fromkeys(("wall_s", "circuit_wait_s", "circuit_s", "evaluation_s"), 0.0)
    return replace(measurement, **seconds, peak_flops_per_s=None, peak_memory_bytes=None)
