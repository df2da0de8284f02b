"""Known points come first and in order, are counted, and leave a search that is cut off the same."""

import random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.outcomes import OUTCOME
from support.searches import SAMPLERS
from support.simulated_search import RATE, THREE, simulated
from support.small_study import a_study

from qsgd_ray.config import Arm, Choice, Optimizer, Search, Uniform
from qsgd_ray.config.known_points import known_points
from qsgd_ray.config.trial import search_trial
from qsgd_ray.results import Results
from qsgd_ray.search._arm_search import ArmSearch

optuna.logging.set_verbosity(optuna.logging.WARNING)
FULL = {"learning_rate": 2e-3, "perturbation.lambda_": 0.05}
KNOWN = {"sine": ({"perturbation.lambda_": 1e-3}, FULL), "adamw": ({"learning_rate": 1e-2},)}


def with_known(sampler="tpe", known=KNOWN, **fields):
    search = Search(trials_per_arm=6, epochs=2, grace_epochs=1, sampler=sampler, known_points=known, **fields)
    return THREE.model_copy(update={"search": search})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_points_come_first_in_order_and_are_counted(tmp_path, sampler):
    study = with_known(sampler)
    results = Results(tmp_path)
    results.open(study, {})
    tried = simulated(study, results, random.Random(0))
    assert [len(tried[name]) for name in ("adamw", "sine")] == [6, 6]
    assert tried["adamw"][0]["point"] == {"learning_rate": 1e-2}
    first, second = (one["point"] for one in tried["sine"][:2])
    assert (first["perturbation.lambda_"], second) == (1e-3, FULL)
    assert 1e-4 <= first["learning_rate"] <= 1e-1
    assert simulated(study, results, random.Random(5)) == tried


@pytest.mark.parametrize("at_once", [1, 3])
@settings(max_examples=8, deadline=None)
@given(kept=st.sets(st.integers(0, 5)), order=st.randoms(use_true_random=False))
def test_a_search_with_known_points_that_was_cut_off_tries_them_once(tmp_path_factory, at_once, kept, order):
    study = with_known(trials_at_once_per_arm=at_once)
    results = Results(tmp_path_factory.mktemp("known") / "three")
    results.open(study, {})
    before = simulated(study, results, random.Random(0))["sine"]
    for one in before:
        if one["number"] in kept:
            results.write(search_trial(study, "sine", one["number"], one["point"]), OUTCOME)
    after = {one["number"]: one["point"] for one in simulated(study, results, order)["sine"]}
    assert sorted(after) == list(range(6))
    assert all(after[one["number"]] == one["point"] for one in before if one["number"] in kept or at_once == 1)
    assert (after[0]["perturbation.lambda_"], after[1]) == (1e-3, FULL)


NESTEROV = {"optimizer.nesterov": True}
CONDITIONAL = Arm(
    name="sgd",
    optimizer=Optimizer(
        "sgd",
        lr=RATE,
        nesterov=Choice(options=(True, False)),
        momentum=Uniform(low=0.5, high=0.99, active_when=NESTEROV, otherwise=0.0),
    ),
)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_field_is_drawn_where_its_condition_holds_also_after_known_points(sampler):
    known = {"sgd": ({"optimizer.momentum": 0.9}, {"optimizer.nesterov": False})}
    budget = 6 if sampler == "gp" else 16
    study = a_study(
        arms=(CONDITIONAL,),
        baseline="sgd",
        search=Search(trials_per_arm=budget, epochs=2, sampler=sampler, known_points=known),
    )

    def tried() -> list[dict]:
        search, points = ArmSearch(study, 0, {}), []
        while search.n_left:
            number, point = search.ask()
            search.tell(number, [-abs(point["optimizer.lr"] - 0.01)])
            points.append(point)
        return points

    points = tried()
    assert points == tried()
    assert all(("optimizer.momentum" in point) == point["optimizer.nesterov"] for point in points)
    assert {point["optimizer.nesterov"] for point in points} == {True, False}
    assert points[0].get("optimizer.momentum", 0.9) == 0.9
    assert points[1]["optimizer.nesterov"] is False
    assert all(not CONDITIONAL.at(point).spaces() for point in points)
    assert len(known_points(study.search, CONDITIONAL)) == 2
