"""Rows of trials as the analysis reads them: one confirmation a seed, and the numbers of a row that it needs often."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsgd_ray.analysis.metric import Split, metric_value
from qsgd_ray.config import Metric, StudyError
from qsgd_ray.outcome import REPEATED, Ending, environment_error
from qsgd_ray.results import StudyTables

Row = dict[str, Any]


def confirm_rows(tables: StudyTables, arm: str) -> list[Row]:
    """Return the confirmation's rows of an arm in the order of the study's seeds, at most one a seed.

    Raises:
        StudyError: two rows have the same seed, so the arm was confirmed at two points.
    """
    seeds = tables.study.confirm.seeds
    rows = tables.rows("confirm", arm)
    by_seed = {row["seed"]: row for row in rows}
    if len(by_seed) < len(rows):
        raise StudyError(f"DIR: got more than one confirmation of {arm} at a seed; allowed: one, at the chosen point")
    return [by_seed[seed] for seed in seeds if seed in by_seed]


def final_value(row: Row, metric: Metric, split: Split = "test") -> float | None:
    """Return the metric of a completed run, in its unit; None where it did not complete or has no number.

    The confirmation is compared by test data; search and map are by validation data.
    """
    value = metric_value(row, split, metric)
    if row["ending"] != Ending.COMPLETED or value is None or not np.isfinite(value):
        return None
    return float(value)


def has_ended(row: Row) -> bool:
    """Return True where a run came to its own end; False where a machine ended it, which says nothing of the arm.

    That is a lost process, or a package, device, memory or data set that was missing. Rows of earlier versions tell the
    latter by their error alone.
    """
    return row["ending"] not in REPEATED and environment_error(row["error"]) is None


def usable_value(row: Row, metric: Metric) -> float | None:
    """Return a search trial's metric on validation data; None where it diverged, failed, was lost or has no number.

    A trial that the search stopped early counts with the value that it had reached.
    """
    value = metric_value(row, "validation", metric)
    ended = row["ending"] in (Ending.COMPLETED, Ending.STOPPED_EARLY)
    return value if ended and value is not None and np.isfinite(value) else None


def step_ratio(row: Row) -> float | None:
    """Return |lambda * Q| / |Adam step| of a trial; None where nothing is perturbed (protocol 13)."""
    perturbation, adam = row["perturbation_norm"], row["adam_step_norm"]
    return perturbation / adam if perturbation is not None and adam else None


def seconds_per_step(row: Row) -> float | None:
    """Return a trial's seconds per optimizer step, the wait for circuits included and evaluation not."""
    return row["wall_s"] / row["steps"] if row["wall_s"] is not None and row["steps"] else None


def median(values: list[float]) -> float | None:
    """Return the median; None of no value."""
    return float(np.median(values)) if values else None
