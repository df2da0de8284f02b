"""Names of trials of the shipped studies, as they were before an arm could have another optimizer than AdamW."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from qsgd_ray.config import Arm, Choice, Study
from qsgd_ray.config.base import Point
from qsgd_ray.config.trial import confirm_trials, map_trials, search_key, search_trial

# By study: digests of the search's keys and first trials, of the confirmation's first trials, of the map.
IDS = {
    "quick": (
        "c66e9fae3c7445ee",
        "0fcf986664b9425b",
        "93b59d211b63eb68",
        "4f53cda18c2baa0c",
    ),
    "paper_text": (
        "b16f06aaf13b3485",
        "a5003b4961af967a",
        "3cd2006f57f098cc",
        "30d11d4258b08865",
    ),
    "paper_llm": (
        "4f53cda18c2baa0c",
        "4f53cda18c2baa0c",
        "4b22309e5eb59f6c",
        "4f53cda18c2baa0c",
    ),
}


def ids_of(study: Study) -> tuple[str, ...]:
    """Return the digests of a study's ids, at a point in the middle of each arm's space."""
    points = {arm.name: _middle(arm) for arm in study.arms}
    searched = [arm.name for arm in study.arms if arm.spaces()]
    return (
        _digest([search_key(study, name, None) for name in searched]),
        _digest([search_trial(study, name, 0, points[name]).trial_id for name in searched]),
        _digest([confirm_trials(study, arm.name, points[arm.name])[0].trial_id for arm in study.arms]),
        _digest([trial.trial_id for trial in map_trials(study, points)]),
    )


def _middle(arm: Arm) -> Point:
    point: Point = {}
    while left := [(path, space) for path, space in arm.spaces_at(point).items() if path not in point]:
        path, space = left[0]
        point[path] = space.options[-1] if isinstance(space, Choice) else (space.low + space.high) / 2
    return point


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
