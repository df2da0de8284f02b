"""The names of the shipped studies' trials and searches are those of their first version."""

import hashlib

import pytest
from support.places import ROOT

from qsgd_ray.config.loading import load_study
from qsgd_ray.config.trial import choice_key, confirm_trials, map_trials, search_key, search_trial

# By study: its trials' number, a hash of all their names, and the keys of one arm's search and choice.
NAMES = {
    "quick": (21, "f655f26d8d9809c6", "adamw", "a1b7aad315", "82a5f085b4"),
    "paper_text": (82, "bde786ccd0a04800", "adam", "2e679d5e3d", "c9a155939a"),
    "paper_llm": (18, "8ab95dc2361c0316", "adamw", "ccbb66dea6", "76927434c1"),
}


def first_point(arm):
    """Return the point at the first edge of every space of an arm."""
    point = {}
    while missing := [(path, space) for path, space in arm.spaces_at(point).items() if path not in point]:
        path, space = missing[0]
        point[path] = space.edges()[0]
    return point


@pytest.mark.parametrize("name", NAMES)
def test_trials_and_searches_keep_their_names(name):
    study = load_study(ROOT / "studies" / f"{name}.py")
    points = {arm.name: first_point(arm) for arm in study.arms}
    trials = [search_trial(study, arm, 0, point) for arm, point in points.items()]
    trials += [trial for arm, point in points.items() for trial in confirm_trials(study, arm, point)]
    trials += map_trials(study, points)
    digest = hashlib.sha256("\n".join(trial.trial_id for trial in trials).encode()).hexdigest()[:16]
    arm = study.baseline
    now = (len(trials), digest, arm, search_key(study, arm, None), choice_key(study, arm))
    assert now == NAMES[name]


def test_one_confirmation_of_the_quick_study_has_the_name_it_always_had():
    study = load_study(ROOT / "studies" / "quick.py")
    trial = confirm_trials(study, "adamw", {"learning_rate": 5e-4})[0]
    assert trial.trial_id == "confirm-adamw-s101-5b0608c385"
