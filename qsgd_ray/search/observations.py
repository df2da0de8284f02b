"""Collect the observations of a search from its rows, and choose the point that is confirmed.

A row counts by its content: one that the study as it is now would not have made is left out. Test data is never read
(protocol, rule 3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.analysis.objectives import RunResult, objective_values, quality
from qsgd_ray.analysis.trials import searched_values
from qsgd_ray.config import Arm, Metric, Study
from qsgd_ray.config.base import Point
from qsgd_ray.config.trial import search_trials
from qsgd_ray.outcome import REPEATED, USABLE, Ending
from qsgd_ray.results import StudyTables

Row = dict[str, Any]


@dataclass(frozen=True)
class _Observation:
    """A trial of an arm's search.

    Attributes:
        number: counts the arm's trials from 0.
        point: a value for each field that is searched there, by dotted path.
        rows: the rows of its runs by trial_id, in the order of seeds; None where a row is missing.
        metric: of the study's decision.
    """

    number: int
    point: Point
    rows: dict[str, Row | None]
    metric: Metric

    @property
    def complete(self) -> bool:
        """True where every seed has its row. A run that is repeated, as it was lost or lacked something, is missing."""
        return all(row is not None and row["ending"] not in REPEATED for row in self.rows.values())

    @property
    def ending(self) -> Ending | None:
        """The best ending of its runs: `completed`, `stopped_early` or None."""
        endings = [row["ending"] for row in self.rows.values() if row is not None]
        return next((ending for ending in USABLE if ending in endings), None)

    @property
    def results(self) -> list[RunResult]:
        """The results of its runs; a run that did not end like the best of them has none."""
        return [
            RunResult(None)
            if row is None
            else RunResult.from_row(row, self.metric, usable=row["ending"] == self.ending)
            for row in self.rows.values()
        ]

    @property
    def loss(self) -> float:
        """Mean validation loss, infinite where a run has none."""
        return float(np.mean([np.inf if run.loss is None else run.loss for run in self.results]))


def _observed_points(study: Study, rows: Iterable[Row]) -> dict[str, list[_Observation]]:
    """Return the observations of each arm's search by number, incomplete ones included.

    Args:
        study: rows of other arms, spaces or settings are left out.
        rows: of the table `trials`.
    """
    by_arm: dict[str, dict[int, _Observation]] = defaultdict(dict)
    names, metric = {arm.name for arm in study.arms}, study.metric
    for row in rows:
        if row["stage"] != "search" or row["arm"] not in names:
            continue
        arm, number = study.arm(row["arm"]), row["number"]
        point = arm.point_in(searched_values(row, arm))
        known = by_arm[arm.name].get(number)
        if known is None or row["trial_id"] not in known.rows:
            if point is None:
                continue
            ids = [trial.trial_id for trial in search_trials(study, arm.name, number, point)]
            if row["trial_id"] not in ids:
                continue
            known = by_arm[arm.name].setdefault(number, _Observation(number, point, dict.fromkeys(ids), metric))
        known.rows[row["trial_id"]] = row
    return {name: sorted(by_arm[name].values(), key=lambda one: one.number) for name in names}


def unfinished_points(tables: StudyTables) -> dict[str, int]:
    """Return how many points each arm's search has still to try; arms without any are left out."""
    study = tables.study
    observed = _observed_points(study, tables.trials.to_pylist())
    left = {arm.name: study.points(arm) - sum(one.complete for one in observed[arm.name]) for arm in study.arms}
    return {name: count for name, count in left.items() if count > 0}


def unavailable_arms(tables: StudyTables) -> set[str]:
    """Return the arms that are searched, and of whose trials every one lacked something where it ran."""
    observed = _observed_points(tables.study, tables.trials.to_pylist())
    endings = {
        name: {row["ending"] for one in of_arm for row in one.rows.values() if row is not None}
        for name, of_arm in observed.items()
    }
    return {name for name, of_arm in endings.items() if of_arm == {Ending.UNAVAILABLE}}


def best_point(study: Study, arm: Arm, rows: Iterable[Row]) -> Point | None:
    """Return the point of the arm's best search trial, by quality after the last epoch, then by validation loss.

    An arm with nothing to search has one point, and is not searched.

    With several objectives: of the points whose quality is within `search.tolerance` of the best, the one of the least
    cost, by the first objective that costs, then by the next.

    Trials that ran to the end come before those that were stopped early.

    Args:
        study: its objectives and tolerance decide.
        arm: one of the study's.
        rows: of the table `trials`.

    Returns:
        The point; None where no trial of the arm has a usable result.
    """
    if not arm.spaces():
        return {}
    ended = [one for one in _observed_points(study, rows)[arm.name] if one.complete]
    for ending in USABLE:
        if there := [one for one in ended if one.ending == ending]:
            return _chosen(study, there).point
    return None


def _chosen(study: Study, observations: list[_Observation]) -> _Observation:
    search, metric = study.search, study.metric

    def gain(one: _Observation) -> float:
        return metric.sign * quality(one.results, metric)

    best = max(map(gain, observations))
    # Where no run has a value, the worst one is infinite, and so is the least.
    least = best - search.tolerance

    def rank(one: _Observation) -> tuple[float, ...]:
        costs = objective_values(one.results, search.objectives[1:], metric)
        return (*(np.inf if cost is None else cost for cost in costs), -gain(one), one.loss, one.number)

    return min((one for one in observations if gain(one) >= least), key=rank)
