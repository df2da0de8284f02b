"""Trials of a folder that belong to a study: rows and the chosen points in, the ids of those that belong out.

A trial belongs if the study as it is now would run it: its content is that of a planned search trial, or of a
confirmation or a map that starts from the point that is chosen now. The others stay where they are, and count again
when the study is changed back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from qsgd_ray.config import Arm, Study
from qsgd_ray.config.base import Point
from qsgd_ray.config.trial import choice_key, confirm_trials, known_budget, map_trials, search_key, search_trial
from qsgd_ray.paths import PathError, value_at

_Row = dict[str, Any]
# By arm the point at which it is confirmed. None: it was chosen for another search, and no confirmation counts until it
# is chosen anew. An arm without an entry never had a point: then any point of its space will do.
Choices = dict[str, Point | None]
# Columns of a trial's row that are needed here.
COLUMNS = ("trial_id", "stage", "arm", "number", "seed", "started_at", "trial")


def member_ids(study: Study, rows: Iterable[_Row], choices: Choices) -> set[str]:
    """Return the ids of the rows (with `COLUMNS`) that belong to `study`.

    Rows that do not hold their trial were written by a version of this package whose folders held one study.
    """
    arms = {arm.name: (arm, study.points(arm)) for arm in study.arms}
    seed_index = {seed: index for index, seed in enumerate(study.search.seeds)}
    confirmed: dict[str, set[str]] = {}
    of_map = _map_ids(study, choices)
    key_of = lru_cache(lambda arm, budget: search_key(study, arm, budget))
    searched: dict[tuple[str, int, int], _Row] = {}
    ids = set()
    for row in rows:
        if row["arm"] not in arms:
            continue
        arm, n_points = arms[row["arm"]]
        if row["trial"] is None:
            ids.add(row["trial_id"])
            continue
        if row["stage"] == "map":
            if of_map is None or row["trial_id"] in of_map:
                ids.add(row["trial_id"])
            continue
        point = point_of(json.loads(row["trial"])["arm"], arm)
        if point is None:
            continue
        if row["stage"] == "search":
            if row["number"] >= n_points or row["seed"] not in seed_index:
                continue
            key = key_of(arm.name, known_budget(study.search, row["number"]))
            try:
                planned = search_trial(study, arm.name, row["number"], point, key, seed_index[row["seed"]])
            except ValueError:  # no point of the arm's space as it is now
                continue
            if planned.trial_id != row["trial_id"]:
                continue
            # Another version of Optuna may have tried another point under the same number: the later one counts.
            run = (arm.name, row["number"], row["seed"])
            searched[run] = max(row, searched.get(run, row), key=_started)
        elif row["stage"] == "confirm" and (chosen := choices.get(arm.name, point)) is not None:
            key = f"{arm.name} {json.dumps(chosen)}"
            if key not in confirmed:
                confirmed[key] = _confirmed_ids(study, arm.name, chosen)
            if row["trial_id"] in confirmed[key]:
                ids.add(row["trial_id"])
    return ids | {row["trial_id"] for row in searched.values()}


def _confirmed_ids(study: Study, arm: str, point: Point) -> set[str]:
    """Return the ids of the arm's confirmation at a point; none where the arm cannot be trained there."""
    try:
        return {trial.trial_id for trial in confirm_trials(study, arm, point)}
    except ValueError:
        return set()


def _map_ids(study: Study, choices: Choices) -> set[str] | None:
    """Return the ids of the map's trials; None where one of its arms never had a point, and any will do."""
    if study.map is None:
        return set()
    if not {study.map.arm, study.baseline} <= choices.keys():
        return None
    points = {name: point for name, point in choices.items() if point is not None}
    return {trial.trial_id for trial in map_trials(study, points)}


def _started(row: _Row) -> float:
    return row["started_at"].timestamp() if row["started_at"] else 0.0


def point_of(tree: dict[str, Any], arm: Arm) -> Point | None:
    """Return the point of `arm` at which an arm without spaces, given as JSON, lies; None where it is another arm."""
    values: dict[str, Any] = {}
    for path in arm.spaces():
        try:
            value = value_at(tree, path)
        except PathError:
            continue  # a field that is not active there may be left out
        if isinstance(value, int | float | str):
            values[path] = value
    return arm.point_in(values)


class ChoiceError(ValueError):
    """A choice that no arm of the study can have; its text names the arm and the field."""


def current_choices(study: Study, stored: dict[str, Any] | None) -> Choices:
    """Return the choices of a folder's chosen.json for the arms of `study`; an arm without a space has one point.

    Args:
        study: the study.
        stored: the file's content; None: there is no file.

    Raises:
        ChoiceError: the file's choice for an arm cannot be read, or is a point that the arm cannot have.
    """
    points: Choices = {}
    for arm in study.arms:
        choice = (stored or {}).get(arm.name)
        if not arm.spaces():
            points[arm.name] = {}
        elif choice is not None:
            points[arm.name] = _chosen_point(arm, choice, choice_key(study, arm.name))
    return points


def _chosen_point(arm: Arm, choice: Any, key: str) -> Point | None:
    """Return the point of a stored choice; None where it is the best of another search."""
    if not isinstance(choice, dict) or not isinstance(choice.get("search"), str):
        raise ChoiceError(f"whose {arm.name} is {choice!r}")
    point = choice.get("point")
    if not isinstance(point, dict) or not all(isinstance(value, int | float | str) for value in point.values()):
        raise ChoiceError(f"whose {arm.name}.point is {point!r}")
    if choice["search"] != key:
        return None
    try:
        arm.at(point)
    except (ValueError, KeyError, TypeError) as error:
        raise ChoiceError(f"whose {arm.name}.point is refused ({error})") from None
    return point
