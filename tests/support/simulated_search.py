"""A search whose trials are numbers, without training."""

from __future__ import annotations

import random

import optuna

from qsgd_ray.config import Arm, LogUniform, Perturbation, Search, Study
from qsgd_ray.execution.trainable import SCORE
from qsgd_ray.results import Results
from qsgd_ray.search.tune import _ArmSearches
from support.small_study import a_study

RATE = LogUniform(low=1e-4, high=1e-1)

THREE = a_study(
    arms=(
        Arm(name="adamw", learning_rate=RATE),
        Arm(name="sine", learning_rate=RATE, perturbation=Perturbation(source="sine", lambda_=RATE)),
        Arm(name="fixed"),
    ),
    search=Search(trials_per_arm=6, epochs=2, grace_epochs=1),
)


def simulated(study: Study, results: Results, order: random.Random) -> dict[str, list[dict]]:
    """The points that each arm is given where running trials end in a random order."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searches = _ArmSearches(results.tables(study))
    given_to: dict[str, list[dict]] = {arm.name: [] for arm in study.arms}
    running: dict[str, dict] = {}
    asked = 0
    while True:
        suggestion = searches.suggest(f"t{asked}")
        if suggestion == "FINISHED" and not running:
            return given_to
        if isinstance(suggestion, dict):
            given_to[suggestion["arm"]].append(suggestion)
            running[f"t{asked}"] = suggestion
            asked += 1
            continue
        ended = order.choice(sorted(running))
        point = running.pop(ended)["point"]
        searches.on_trial_complete(ended, {SCORE: sum(point.values()), "training_iteration": 1})
