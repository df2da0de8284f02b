"""What a search has tried: rows in; points with their runs, and the one that is confirmed, out.

Rows count by content: one that is not of the study as it is now is no row of its search. Test data is not looked at
(protocol, rule 3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.analysis.objectives import RunResult, objective_values, quality
from qsgd_ray.config import Arm, Study
from qsgd_ray.config.base import Point
from qsgd_ray.config.trial import search_trials
from qsgd_ray.outcome import USABLE, Ending
from qsgd_ray.results import StudyTables

Row = dict[str, Any]


@dataclass(frozen=True)
class Observation:
    """A trial of an arm's search: its point, and the rows of its runs by their trial_id, in the order of seeds."""

    number: int
    point: Point
    rows: dict[str, Row | None]

    @property
    def complete(self) -> bool:
        """Has every seed its row? (A lost one is tried again.)"""
        return all(row is not None and row["ending"] != Ending.LOST for row in self.rows.values())

    @property
    def ending(self) -> Ending | None:
        """How far the best of its runs came: `completed`, `stopped_early` or None."""
        endings = [row["ending"] for row in self.rows.values() if row is not None]
        return next((ending for ending in USABLE if ending in endings), None)

    @property
    def results(self) -> list[RunResult]:
        """Its runs; those that did not come as far as the best of them came to nothing."""
        return [
            RunResult(None) if row is None else RunResult.from_row(row, usable=row["ending"] == self.ending)
            for row in self.rows.values()
        ]

    @property
    def loss(self) -> float:
        """Mean validation loss, infinite where a run has none."""
        return float(np.mean([np.inf if run.loss is None else run.loss for run in self.results]))


def point_of(arm: Arm, row: Row) -> Point:
    """The point of an arm's space that a row stands at: a column bears the last word of a field's path.

    Null is what was not asked for there.
    """
    values = {path: row[path.rpartition(".")[2]] for path in arm.spaces()}
    return {path: value for path, value in values.items() if value is not None}


def observed_points(study: Study, rows: Iterable[Row]) -> dict[str, list[Observation]]:
    """Per arm, what its search has tried, by number; whatever has at least one row."""
    found: dict[str, dict[int, Observation]] = defaultdict(dict)
    names = {arm.name for arm in study.arms}
    for row in rows:
        if row["stage"] != "search" or row["arm"] not in names:
            continue
        arm, number = study.arm(row["arm"]), row["number"]
        point = point_of(arm, row)
        known = found[arm.name].get(number)
        if known is None or row["trial_id"] not in known.rows:
            if point.keys() != arm.spaces_at(point).keys():
                continue
            ids = [trial.trial_id for trial in search_trials(study, arm.name, number, point)]
            if row["trial_id"] not in ids:
                continue
            known = found[arm.name].setdefault(number, Observation(number, point, dict.fromkeys(ids)))
        known.rows[row["trial_id"]] = row
    return {name: sorted(found[name].values(), key=lambda one: one.number) for name in names}


def unfinished_points(tables: StudyTables) -> dict[str, int]:
    """Return how many points each arm's search has still to try; arms without any are left out."""
    study = tables.study
    observed = observed_points(study, tables.trials.to_pylist())
    left = {arm.name: study.points(arm) - sum(one.complete for one in observed[arm.name]) for arm in study.arms}
    return {name: count for name, count in left.items() if count > 0}


def best_point(study: Study, arm: Arm, rows: Iterable[Row]) -> Point | None:
    """The point of the arm's best search trial: quality after the last epoch, then validation loss.

    An arm with nothing to search has one point, and is not searched.

    With several objectives: of the points whose quality is within `search.tolerance` of the best, the one of the least
    cost, by the first objective that costs, then by the next.

    Trials that ran to the end come before those that were stopped early; None where no trial got that far.
    """
    if not arm.spaces():
        return {}
    ended = [one for one in observed_points(study, rows)[arm.name] if one.complete]
    for ending in USABLE:
        if there := [one for one in ended if one.ending == ending]:
            return _chosen(study, there).point
    return None


def _chosen(study: Study, tried: list[Observation]) -> Observation:
    search = study.search
    least = max(quality(one.results) for one in tried) - search.tolerance

    def rank(one: Observation) -> tuple[float, ...]:
        costs = objective_values(one.results, search.objectives[1:])
        return (*(np.inf if cost is None else cost for cost in costs), -quality(one.results), one.loss, one.number)

    return min((one for one in tried if quality(one.results) >= least), key=rank)
