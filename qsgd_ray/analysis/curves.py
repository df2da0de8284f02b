"""Curves over epochs: the measurements of confirmation runs in; each run's curve and each arm's mean curve out.

A mean curve is the interquartile mean over runs at every epoch that all of them have, with a percentile bootstrap band
(`statistics.bootstrap_band`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._rows import confirm_rows
from qsgd_ray.analysis.metric import _metric_column, factor_of
from qsgd_ray.analysis.statistics import Floats
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class RunCurve:
    """One run's numbers by epoch.

    Attributes:
        is_complete: the run ended as planned; else it diverged, failed or was lost.
        epochs: float64, shape (n,), ascending; at least one.
        values: float64, shape (n,), finite; in the unit of the curves.
    """

    is_complete: bool
    epochs: Floats
    values: Floats


@dataclass(frozen=True)
class MeanCurve:
    """The interquartile mean of several runs by epoch, with its 95 % band.

    Attributes:
        epochs: float64, shape (n,): those that all runs have, ascending.
        mean: float64, shape (n,).
        band: lower and upper edge, float64, shape (n,) each; None of fewer than two runs.
    """

    epochs: Floats
    mean: Floats
    band: tuple[Floats, Floats] | None


@dataclass(frozen=True)
class ArmCurves:
    """The curves of one arm's confirmation.

    Attributes:
        arm: its name.
        runs: those with at least one number, in the order of the study's seeds.
        n_empty: runs without a number.
        mean: the mean curve; None where its runs share no epoch.
    """

    arm: str
    runs: tuple[RunCurve, ...]
    n_empty: int
    mean: MeanCurve | None


def learning_curves(tables: StudyTables) -> tuple[ArmCurves, ...]:
    """Return the metric of validation data by epoch of every arm, a share in percent; means are over completed runs."""
    metric = tables.study.metric

    # In percent from here on: a mean of percents and a hundred times a mean differ in their last bits.
    def shown_values(measurements: pa.Table) -> Floats:
        return factor_of(metric) * _metric_column(measurements, metric)

    return tuple(
        _arm_curves(tables, arm.name, shown_values, lambda run: run.is_complete, metric.sign)
        for arm in tables.study.arms
    )


def step_ratio_curves(tables: StudyTables) -> tuple[ArmCurves, ...]:
    """Return |lambda * Q| / |Adam step| by epoch of every arm; an arm without a perturbation has no runs in it.

    Ratios of zero are left out: they have no place on a logarithmic axis. Means are over all runs with a number.
    """
    return tuple(
        _arm_curves(tables, arm.name, _ratios, in_mean=lambda _: True)
        if arm.perturbation is not None
        else ArmCurves(arm.name, (), 0, None)
        for arm in tables.study.arms
    )


def _arm_curves(
    tables: StudyTables,
    arm: str,
    values_of: Callable[[pa.Table], Floats],
    in_mean: Callable[[RunCurve], bool],
    sign: int = 1,
) -> ArmCurves:
    rows = confirm_rows(tables, arm)
    curves = []
    for row in rows:
        measurements = tables.curve(row["trial_id"])
        values = values_of(measurements)
        is_finite = np.isfinite(values)
        epochs = _column(measurements, "epoch")[is_finite]
        curves.append(RunCurve(row["ending"] == Ending.COMPLETED, epochs, values[is_finite]))
    runs = tuple(curve for curve in curves if len(curve.epochs))
    return ArmCurves(arm, runs, len(rows) - len(runs), _mean_curve(filter(in_mean, runs), sign))


def _mean_curve(runs: Iterable[RunCurve], sign: int) -> MeanCurve | None:
    runs = list(runs)
    epochs = reduce(np.intersect1d, [run.epochs for run in runs]) if runs else np.empty(0)
    if not len(epochs):
        return None
    values = np.stack([run.values[np.searchsorted(run.epochs, epochs)] for run in runs])
    # Resampled as gains: a mirrored metric then has the mirrored band.
    band = statistics.bootstrap_band(sign * values)
    if band is not None and sign < 0:
        band = (-band[1], -band[0])
    return MeanCurve(epochs, statistics.interquartile_mean(values), band)


def _ratios(measurements: pa.Table) -> Floats:
    """Return |lambda * Q| / |Adam step|, NaN where it is not above zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = _column(measurements, "perturbation_norm") / _column(measurements, "adam_step_norm")
    return np.where(ratios > 0, ratios, np.nan)


def _column(rows: pa.Table, name: str) -> Floats:
    """Return a column as float64, NaN where it is null."""
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)
