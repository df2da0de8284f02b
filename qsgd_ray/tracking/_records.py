"""Turn a trial and its rows into what trackers show: parameters by dotted path, and numbers by column."""

from __future__ import annotations

from typing import Any

from qsgd_ray.config.trial import Trial
from qsgd_ray.paths import leaves

Row = dict[str, Any]
# The columns of `measurements` that identify a measurement.
_KEYS = ("trial_id", "stage", "arm", "number", "seed", "epoch")


def parameters(trial: Trial) -> dict[str, str | int | float | bool]:
    """Return a trial's settings by dotted path, without those that are off."""
    settings = leaves(trial.model_dump(mode="json", exclude={"study"}))
    return {p: ",".join(map(str, v)) if isinstance(v, list) else v for p, v in settings if v is not None}


def numbers(row: Row, names: tuple[str, ...] | None = None) -> dict[str, float]:
    """Return the numbers of a row, without missing ones, which are no zeros; `names`: these columns only."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and (name in names if names else name not in _KEYS)
    }
