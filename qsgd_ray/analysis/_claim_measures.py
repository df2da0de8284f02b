"""The measures of claims, by name: a contrast's pairs of runs in; a figure with its interval out.

A difference is the mean over the pairs with Student's interval. A change is the ratio of means less one, with the
bootstrap's interval (`statistics.relative_change`). Along an axis of the map a measure is its slope, with
heteroscedasticity-robust errors (HC3, MacKinnon and White 1985): of a change that of the ratio's logarithm, as a rate a
unit of the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm

from qsgd_ray.analysis import significance, statistics
from qsgd_ray.analysis._claim_pairs import RowPair, both_sides, columns_of, row_pairs
from qsgd_ray.analysis._rows import Row, final_value, seconds_per_step
from qsgd_ray.analysis.metric import Split, unit_of
from qsgd_ray.analysis.pairs import pair_by_seed
from qsgd_ray.analysis.statistics import Estimate, Interval
from qsgd_ray.analysis.verdict import MIN_PAIRS
from qsgd_ray.config import UNITS, Contrast, Measure, Metric, Study, metrics_of
from qsgd_ray.config.stages import baseline_setting, setting_name
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class Measured:
    """A measure of a contrast.

    Attributes:
        estimate: the figure with its interval, in the measure's unit; None where no pair of runs has the number.
        n_pairs: pairs of runs behind it.
        lost: runs without a result of the contrast's arm, of `lost_runs`.
        span: the smallest and the largest value along the axis of a slope.
    """

    estimate: Estimate | None
    n_pairs: int
    lost: int | None = None
    span: tuple[float, float] | None = None


def metric_of(study: Study, name: str | None) -> Metric:
    """Return a claim's metric: the one that decides, where the claim names none."""
    return study.metric if name is None else next(one for one in metrics_of(study.workload) if one.name == name)


def unit_of_measure(measure: Measure, metric: Metric) -> str:
    """Return the unit of a measure's figures.

    Args:
        measure: its name.
        metric: of a difference, whose unit is the metric's; `points` of a share.
    """
    return UNITS.get(measure) or unit_of(metric)


def measured(tables: StudyTables, contrast: Contrast, measure: Measure, metric: str | None) -> Measured | str:
    """Return what the rows show of a measure, or why the study has nothing to measure it by, as a sentence.

    Args:
        tables: the study and its rows.
        contrast: the runs that are compared.
        measure: by what.
        metric: of a difference or a spread. None: the one that decides.
    """
    of = metric_of(tables.study, metric)
    if contrast.along is not None:
        return _slope(tables, contrast, measure, of)
    if contrast.at is not None and (tables.study.map is None or tables.study.map.arm != contrast.arm):
        return f"It needs a map of {contrast.arm}."
    if measure == "lost_runs":
        return _lost_runs(tables, contrast)
    pairs = row_pairs(tables, contrast)
    if measure in ("difference", "spread_change"):
        left, right = _results(pairs, of, _split(contrast))
        if measure == "difference":
            return _mean_difference(left, right)
        return Measured(statistics.relative_spread(left, right), len(left))
    return _OF_COLUMNS[measure](pairs)


def _split(contrast: Contrast) -> Split:
    """Return the data that results are of: test data in the confirmation, validation data in the map."""
    return "validation" if contrast.is_of_map else "test"


def _training_loss(pairs: list[RowPair]) -> Measured:
    return _mean_difference(*columns_of(pairs, "mean_train_loss"))


def _epoch_time(pairs: list[RowPair]) -> Measured:
    left, right = columns_of(pairs, "wall_s", per="epochs_run")
    return Measured(statistics.relative_change(left, right), len(left))


def _step_time(pairs: list[RowPair]) -> Measured:
    left, right = columns_of(pairs, "wall_s", per="steps")
    return Measured(statistics.relative_change(left, right), len(left))


def _epochs_to_target(pairs: list[RowPair]) -> Measured:
    # A miss counts with the epochs that its run was planned for.
    return _change_of_time(pairs, "epochs_to_target", lambda row: float(row["epochs_planned"]))


def _seconds_to_target(pairs: list[RowPair]) -> Measured:
    # A miss has taken at least its whole run.
    return _change_of_time(pairs, "seconds_to_target", lambda row: float(row["wall_s"]))


_OF_COLUMNS: dict[Measure, Callable[[list[RowPair]], Measured]] = {
    "training_loss_difference": _training_loss,
    "epochs_to_target_change": _epochs_to_target,
    "seconds_to_target_change": _seconds_to_target,
    "seconds_per_epoch_change": _epoch_time,
    "seconds_per_step_change": _step_time,
}


def _results(pairs: list[RowPair], metric: Metric, split: Split) -> tuple[list[float], list[float]]:
    """Return the metric of both sides, of the pairs in which both have one."""
    results = [(final_value(left, metric, split), final_value(right, metric, split)) for left, right in pairs]
    known = [(left, right) for left, right in results if left is not None and right is not None]
    return [left for left, _ in known], [right for _, right in known]


def _mean_difference(left: list[float], right: list[float]) -> Measured:
    """Return the mean difference with Student's interval; no estimate without a pair."""
    differences = statistics.paired_differences(left, right)
    if not len(differences):
        return Measured(None, 0)
    estimate = Estimate(float(np.mean(differences)), statistics.difference_interval(differences))
    return Measured(estimate, len(differences))


def _change_of_time(pairs: list[RowPair], column: str, budget: Callable[[Row], float]) -> Measured:
    """Return the change of the mean time to target, a miss counting with its run's budget (a restricted mean).

    There is no estimate where no run reached the target.
    """
    timed = [rows for rows in pairs if all(row["wall_s"] is not None for row in rows)]
    if not any(row[column] is not None for rows in timed for row in rows):
        return Measured(None, len(timed))
    times = [[row[column] if row[column] is not None else budget(row) for row in rows] for rows in timed]
    change = statistics.relative_change([left for left, _ in times], [right for _, right in times])
    return Measured(change, len(timed))


def _lost_runs(tables: StudyTables, contrast: Contrast) -> Measured:
    """Return the runs without a result beyond the other side's.

    The interval is their number itself where there are none, or where a sign test says that the arm loses more; else
    chance explains them, and it reaches as far to either side of 0.
    """
    study = tables.study
    seeds = study.confirm.seeds if contrast.at is None or study.map is None else study.map.seeds
    pairs = pair_by_seed(*both_sides(tables, contrast), seeds, study.metric, _split(contrast))
    more = pairs.arm_lost - pairs.baseline_lost
    p = significance.sign_test_p_value(pairs.baseline_lost, pairs.arm_lost)
    is_shown = more == 0 or (more > 0 and p < study.decision.alpha)
    interval = Interval(float(more), float(more)) if is_shown else Interval(-float(abs(more)), float(abs(more)))
    return Measured(Estimate(float(more), interval), pairs.n + pairs.n_lost, lost=pairs.arm_lost + pairs.both_lost)


def _slope(tables: StudyTables, contrast: Contrast, measure: Measure, metric: Metric) -> Measured | str:
    study, axis = tables.study, contrast.along
    assert axis is not None
    if study.map is None or study.map.arm != contrast.arm or axis not in study.map.axes:
        return f"It needs a map of {contrast.arm} with the axis {axis}."
    is_change = UNITS.get(measure) == "share"
    rows = [row for name in (contrast.arm, study.baseline) for row in tables.rows("map", name)]
    values = {(row["arm"], row["setting"], row["seed"]): _number_of(row, measure, metric) for row in rows}
    points = []
    for setting in study.map_settings(contrast.arm):
        for seed in study.map.seeds:
            left = values.get((contrast.arm, setting_name(setting), seed))
            right = values.get((study.baseline, setting_name(baseline_setting(setting)), seed))
            if is_change and left and right:
                points.append((float(setting[axis]), float(np.log(left / right))))
            elif not is_change and left is not None and right is not None:
                points.append((float(setting[axis]), left - right))
    if len({place for place, _ in points}) < 2 or len(points) < MIN_PAIRS:
        return "Too few runs of the map have ended."
    places, heights = np.array(points).T
    fit = sm.OLS(heights, sm.add_constant(places)).fit(cov_type="HC3", use_t=True)
    slopes = np.array([fit.params[1], *fit.conf_int(0.05)[1]])
    # Rounded like differences: equal ratios have slopes in their last bits.
    slope, low, high = np.round(np.expm1(slopes) if is_change else slopes, statistics.DECIMALS).tolist()
    span = (float(places.min()), float(places.max()))
    return Measured(Estimate(slope, Interval(low, high)), len(points), span=span)


def _number_of(row: Row, measure: Measure, metric: Metric) -> float | None:
    """Return the number of a run that a measure compares along an axis; None where it has none."""
    if measure == "difference":
        return final_value(row, metric, "validation")
    if measure == "seconds_per_step_change":
        return seconds_per_step(row)
    if measure == "seconds_per_epoch_change":
        return row["wall_s"] / row["epochs_run"] if row["wall_s"] is not None and row["epochs_run"] else None
    loss = row["mean_train_loss"]
    return None if loss is None else float(loss)
