"""What a tracker is told of a trial: a run with its parameters, numbers by epoch, and how it ended.

In: a trial's rows. Out: calls of a `Tracker`.
"""

from __future__ import annotations

from typing import Any, Protocol

from qsgd_ray.config.trial import Trial
from qsgd_ray.paths import leaves
from qsgd_ray.results import StudyTables

Value = str | int | float | bool
Row = dict[str, Any]
# What a row says of the trial as a whole, beside its last measurement.
AT_THE_END = ("test_accuracy", "test_loss", "answers", "answers_right", "epochs_to_target", "elapsed_s")
# Of a measurement what names it.
NAMES = ("trial_id", "stage", "arm", "number", "seed", "epoch")


class Tracker(Protocol):
    """Whoever shows trials; any of these may raise whatever its package raises."""

    def has(self, trial_id: str) -> bool:
        """Whether this trial is there with its end."""

    def begin(self, trial: Trial) -> None:
        """A run for this trial; what an earlier attempt left of it goes."""

    def measured(self, trial: Trial, epoch: int, numbers: dict[str, float]) -> None:
        """Once an epoch."""

    def ended(self, trial: Trial, ending: str, numbers: dict[str, float]) -> None:
        """The last that is told of this trial."""

    def close(self) -> None:
        """No more trials."""


def parameters(trial: Trial) -> dict[str, Value]:
    """What a trial was asked for, by dotted path; what is off is left out."""
    asked = leaves(trial.model_dump(mode="json", exclude={"study"}))
    return {p: ",".join(map(str, v)) if isinstance(v, list) else v for p, v in asked if v is not None}


def numbers(row: Row, names: tuple[str, ...] | None = None) -> dict[str, float]:
    """What of a row is a number; missing ones are left out, as they are no zeros."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and (name in names if names else name not in NAMES)
    }


def record(tracker: Tracker, row: Row, measurements: list[Row], told: int = 0) -> None:
    """A trial as its rows have it. `told`: so many of its epochs the tracker has heard already."""
    trial = Trial.model_validate_json(row["trial"])
    if not told:
        tracker.begin(trial)
    for measurement in sorted(measurements, key=lambda one: one["epoch"]):
        if measurement["epoch"] > told:
            tracker.measured(trial, measurement["epoch"], numbers(measurement))
    tracker.ended(trial, row["ending"], numbers(row, AT_THE_END))


def record_all(tracker: Tracker, tables: StudyTables) -> int:
    """Every trial of the study that the tracker does not have; how many those were. Rows that do not tell their trial
    are passed over."""
    missing = [r for r in tables.trials.to_pylist() if r["trial"] is not None and not tracker.has(r["trial_id"])]
    by_trial: dict[str, list[Row]] = {row["trial_id"]: [] for row in missing}
    for measurement in tables.measurements.to_pylist() if missing else []:
        if measurement["trial_id"] in by_trial:
            by_trial[measurement["trial_id"]].append(measurement)
    for row in missing:
        record(tracker, row, by_trial[row["trial_id"]])
    return len(missing)
