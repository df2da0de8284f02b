"""The protocol of a tracker, and a study's rows written to one."""

from __future__ import annotations

from typing import Protocol

from qsgd_ray.config.trial import Trial
from qsgd_ray.results import StudyTables
from qsgd_ray.results.tables import trial_of
from qsgd_ray.tracking._records import Row, numbers

# The columns of `trials` that describe a trial as a whole; the others repeat its last measurement.
_SUMMARY = ("test_accuracy", "test_loss", "answers", "answers_right", "epochs_to_target", "elapsed_s")


class Tracker(Protocol):
    """A tool that shows trials. Each method may raise whatever the tool's package raises."""

    def has(self, trial_id: str) -> bool:
        """Return True where the tracker has this trial with its ending, which is not `lost` or `unavailable`."""

    def begin(self, trial: Trial) -> None:
        """Open a run for a trial, in place of what an earlier attempt left of it."""

    def log_epoch(self, trial: Trial, epoch: int, numbers: dict[str, float]) -> None:
        """Log the numbers of one epoch.

        Args:
            trial: one that has begun.
            epoch: from 1.
            numbers: by the column of `measurements`.
        """

    def end(self, trial: Trial, ending: str, numbers: dict[str, float]) -> None:
        """Log how a trial ended, and close its run.

        Args:
            trial: one that has begun.
            ending: completed, stopped_early, diverged, failed, lost or unavailable.
            numbers: of the trial as a whole, by the column of `trials`.
        """

    def close(self) -> None:
        """Close the tracker; runs that are under way stay so until the study goes on."""


def record_all(tracker: Tracker, tables: StudyTables) -> int:
    """Write every trial that a tracker lacks, and return how many those were.

    Args:
        tracker: an open one.
        tables: the study and its rows. Rows without the trial's settings (of an early version) are left out.
    """
    missing = [r for r in tables.trials.to_pylist() if r["trial"] is not None and not tracker.has(r["trial_id"])]
    by_trial: dict[str, list[Row]] = {row["trial_id"]: [] for row in missing}
    for measurement in tables.measurements.to_pylist() if missing else []:
        if measurement["trial_id"] in by_trial:
            by_trial[measurement["trial_id"]].append(measurement)
    for row in missing:
        _record(tracker, row, by_trial[row["trial_id"]])
    return len(missing)


def _record(tracker: Tracker, row: Row, measurements: list[Row], n_logged: int = 0) -> None:
    """Write one trial from its rows; the tracker has its first `n_logged` epochs already."""
    trial = trial_of(row)
    if not n_logged:
        tracker.begin(trial)
    for measurement in sorted(measurements, key=lambda measurement: measurement["epoch"]):
        if measurement["epoch"] > n_logged:
            tracker.log_epoch(trial, measurement["epoch"], numbers(measurement, trial))
    tracker.end(trial, row["ending"], numbers(row, trial, _SUMMARY))
