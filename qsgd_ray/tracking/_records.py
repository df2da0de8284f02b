"""Turn a trial and its rows into what trackers show: parameters by dotted path, and numbers by column."""

from __future__ import annotations

from typing import Any

from qsgd_ray.analysis.metric import Split, metric_value
from qsgd_ray.config import metrics_of
from qsgd_ray.config.trial import Trial
from qsgd_ray.paths import leaves

Row = dict[str, Any]
# The columns of `measurements` that identify a measurement.
_KEYS = ("trial_id", "stage", "arm", "number", "seed", "epoch")


def parameters(trial: Trial) -> dict[str, str | int | float | bool]:
    """Return a trial's settings by dotted path, without those that are off."""
    settings = leaves(trial.model_dump(mode="json", exclude={"study"}))
    return {p: ",".join(map(str, v)) if isinstance(v, list) else v for p, v in settings if v is not None}


def metric_names(trial: Trial) -> list[str]:
    """Return the names of a trial's metrics on validation and test data, `SPLIT_NAME`."""
    return [f"{split}_{metric.name}" for metric in metrics_of(trial.workload) for split in ("validation", "test")]


def numbers(row: Row, trial: Trial, names: tuple[str, ...] | None = None) -> dict[str, float]:
    """Return the numbers of a row, without missing ones, which are no zeros.

    Args:
        row: of the table of trials or of measurements, or a measurement as a dict.
        trial: of the row; its metrics without a column of their own are among the numbers.
        names: columns, of which alone the numbers are taken. None: all but those that identify a row.
    """
    columns = {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and (name in names if names else name not in _KEYS)
    }
    return columns | _other_metrics(row, trial, test=names is not None)


def _other_metrics(row: Row, trial: Trial, *, test: bool) -> dict[str, float]:
    """Return the metrics without a column of their own: of test data of a row of trials, else of validation data."""
    split: Split = "test" if test else "validation"
    others = row.get("metrics")
    if isinstance(others, dict):  # of a measurement that is not stored yet
        values = {f"{split}_{name}": value for name, value in others.items()}
    else:
        values = {f"{split}_{one.name}": metric_value(row, split, one) for one in metrics_of(trial.workload) if others}
    return {name: value for name, value in values.items() if value is not None}
