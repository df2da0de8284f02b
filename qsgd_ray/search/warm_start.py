"""Warm start of a search: another study's results in; its trials, copied into this study's own results, out.

What was taken is read from the copy ever after, so that going on needs neither the other results nor their state.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qsgd_ray.analysis.objectives import objective_values
from qsgd_ray.config import Arm, Study
from qsgd_ray.config.base import Point, value_in
from qsgd_ray.config.errors import StudyError
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.results import read as read_results
from qsgd_ray.search.observations import _Observation, _observed_points
from qsgd_ray.storage import refused

_FILE = "warm_start.json"
_FIELD = "search.warm_start"


@dataclass(frozen=True)
class EarlierTrial:
    """A search trial of another study, as a sampler of this one is told it.

    Attributes:
        point: of this study's arm.
        values: one for each objective of this study; None for a cost that was never measured.
        stopped_at: the epoch at which it was stopped early. None: it was not.
    """

    point: Point
    values: tuple[float | None, ...]
    stopped_at: int | None = None


@dataclass(frozen=True)
class WarmStart:
    """Trials of another study, as a search starts from them.

    Attributes:
        place: the other results, as the study names them.
        sentence: on how many trials were taken, and how many were not.
        trials: by arm.
    """

    place: str
    sentence: str
    trials: dict[str, tuple[EarlierTrial, ...]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials that were taken, by arm."""
        return {arm: len(of_arm) for arm, of_arm in self.trials.items()}

    def copy_into(self, results: Results) -> None:
        """Copy the trials into a study's own results, where they are not there yet."""
        stored = results.read_json(_FILE) or {}
        if self.place not in stored:
            tree = {"sentence": self.sentence, "trials": _as_json(self.trials)}
            results.write_text(_FILE, json.dumps(stored | {self.place: tree}, indent=2))


def read_warm_start(study: Study, results: Results) -> WarmStart | None:
    """Return what a study's search takes from another: the copy where there is one, else what the other results hold.

    Args:
        study: its `search.warm_start` names the other results.
        results: the study's own.

    Returns:
        The other study's trials; None where the study has no warm start.

    Raises:
        StudyError: the other results cannot be read or have another metric, or the copy was altered; one line.
        StorageError: an object store does not answer.
    """
    place = study.search.warm_start
    if place is None:
        return None
    stored = results.read_json(_FILE) or {}
    if place not in stored:
        taken = _taken(study, results, place)
        return WarmStart(place, _sentence(study, taken, place), {name: one.trials for name, one in taken.items()})
    try:
        return WarmStart(place, str(stored[place]["sentence"]), _from_json(study, stored[place]["trials"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"whose trials of {place!r:.100} cannot be read ({type(error).__name__})"
        raise refused(results.storage.location(_FILE), reason, "the file as it was written") from None


@dataclass(frozen=True)
class _Taken:
    """Trials of one arm of another study: those inside of this study's space, and the number of the others."""

    trials: tuple[EarlierTrial, ...]
    n_outside: int


def _taken(study: Study, results: Results, place: str) -> dict[str, _Taken]:
    """Return what the other results hold for the arms that are searched in both studies alike."""
    try:
        other = Results(place)
        if str(other.path) == str(results.path):
            raise StudyError(f"got {place!r:.100}; allowed: results of another study than this")
        tables = read_results(place)
    except StudyError as error:
        raise StudyError(f"{_FIELD}: {str(error).removeprefix('DIR: ')}") from None
    ours, theirs = study.metric, tables.study.metric
    if (ours.name, ours.direction) != (theirs.name, theirs.direction):
        raise StudyError(
            f"{_FIELD}: got {place!r:.100}, whose search looks for {theirs.name} ({theirs.direction}); "
            f"allowed: results of a search for {ours.name} ({ours.direction})"
        )
    return _trials_by_arm(study, tables)


def _trials_by_arm(study: Study, tables: StudyTables) -> dict[str, _Taken]:
    theirs = {arm.name: arm for arm in tables.study.arms}
    observed = _observed_points(tables.study, tables.trials.to_pylist())
    taken = {}
    for arm in study.arms:
        if not arm.spaces() or arm.name not in theirs or arm.spaces().keys() != theirs[arm.name].spaces().keys():
            continue
        ended = [one for one in observed[arm.name] if one.complete]
        trials = tuple(trial for one in ended if (trial := _trial(study, arm, one)) is not None)
        taken[arm.name] = _Taken(trials, len(ended) - len(trials))
    return taken


def _trial(study: Study, arm: Arm, one: _Observation) -> EarlierTrial | None:
    """Return an observation as a trial of this study's arm; None where its point is outside."""
    point = _point_within(arm, one.point)
    if point is None or point.keys() != one.point.keys():
        return None
    values = objective_values(one.results, study.search.objectives, study.metric)
    epochs = [row["epochs_run"] for row in one.rows.values() if row is not None]
    stopped_at = max(epochs) if one.ending is Ending.STOPPED_EARLY else None
    return EarlierTrial(point, tuple(values), stopped_at)


def _point_within(arm: Arm, values: Mapping[str, Any]) -> Point | None:
    """Return the point of an arm that values make; None where it is none, or outside of the arm's space."""
    spaces = arm.spaces()
    inside = {path: value_in(spaces[path], value) for path, value in values.items() if path in spaces}
    return arm.point_in({path: value for path, value in inside.items() if value is not None})


def _sentence(study: Study, taken: Mapping[str, _Taken], place: str) -> str:
    counts = [f"{len(one.trials)} of {name}" for name, one in taken.items() if one.trials]
    text = f"The search starts from {', '.join(counts) or 'no'} trials in {place}"
    if outside := sum(one.n_outside for one in taken.values()):
        text += f"; {outside} more lie outside of the spaces of this study"
    if others := [arm.name for arm in study.arms if arm.spaces() and arm.name not in taken]:
        text += (
            f"; {', '.join(others)} {'has' if len(others) == 1 else 'have'} no arm there that searches the same fields"
        )
    return f"{text}."


def _as_json(trials: Mapping[str, Sequence[EarlierTrial]]) -> dict[str, Any]:
    """Return trials as JSON; an infinite quality, for which JSON has no word, as null: the metric's worst."""
    trees = {name: [asdict(trial) for trial in of_arm] for name, of_arm in trials.items()}
    for of_arm in trees.values():
        for tree in of_arm:
            tree["values"] = [None if one is None or not math.isfinite(one) else one for one in tree["values"]]
    return trees


def _from_json(study: Study, trials: Mapping[str, Any]) -> dict[str, tuple[EarlierTrial, ...]]:
    return {arm.name: tuple(_read_trial(study, arm, tree) for tree in trials.get(arm.name, ())) for arm in study.arms}


def _read_trial(study: Study, arm: Arm, tree: Mapping[str, Any]) -> EarlierTrial:
    """Return a stored trial; ValueError where this study can have none such."""
    point, stopped_at, values = _point_within(arm, tree["point"]), tree["stopped_at"], tree["values"]
    if point is None or not isinstance(values, list) or len(values) != len(study.search.objectives):
        raise ValueError(str(tree))
    if not all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in values):
        raise ValueError(str(tree))
    if stopped_at is not None and (type(stopped_at) is not int or stopped_at < 1):
        raise ValueError(str(tree))
    quality = study.metric.worst if values[0] is None else float(values[0])
    costs = [None if cost is None else float(cost) for cost in values[1:]]
    return EarlierTrial(point, (quality, *costs), stopped_at)
