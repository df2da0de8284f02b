"""The search of one arm is a function of the study and of what it was told, whatever the sampler."""

import random

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searches import CONDITIONAL, SAMPLERS
from support.small_study import a_study

from qsgd_ray.config import Arm, Choice, LogUniform, Perturbation, Search, Uniform
from qsgd_ray.search._arm_search import ArmSearch

pytestmark = pytest.mark.usefixtures("one_thread")
optuna.logging.set_verbosity(optuna.logging.WARNING)
RATE = LogUniform(low=1e-4, high=1e-1)
PERTURBED = Perturbation(source="sine", lambda_=Uniform(low=0.0, high=2.0), n_qubits=Choice(options=(2, 4, 6)))


def searched(sampler: str, *, seed: int = 0, budget: int = 6, arms: tuple[Arm, ...] | None = None, place: int = 0):
    arms = arms or (Arm(name="adamw", learning_rate=RATE, perturbation=PERTURBED), Arm(name="other"))
    return ArmSearch(
        a_study(
            arms=arms,
            baseline=arms[0].name,
            seed=seed,
            search=Search(trials_per_arm=budget, epochs=1, grace_epochs=1, sampler=sampler),
        ),
        place,
        {},
    )


def quality(point: dict) -> float:
    """One hill, at a learning rate of 0.01 and six qubits."""
    return 1.0 - abs(np.log10(point["learning_rate"]) + 2.0) / 4 - (6 - point["perturbation.n_qubits"]) / 40


def tried(search: ArmSearch, until: int | None = None) -> list[dict]:
    points = []
    while search.n_left and len(points) != until:
        number, point = search.ask()
        points.append(point)
        search.tell(number, [quality(point)])
    return points


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(max_examples=3)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 5), noise=st.integers(0, 2**32 - 1))
def test_a_search_that_was_cut_off_goes_on_to_the_same_points(sampler, seed, cut, noise):
    """And whatever else draws numbers in this process."""
    undisturbed = tried(searched(sampler, seed=seed))
    tried(searched(sampler, seed=seed), until=cut)
    np.random.seed(noise)
    random.seed(noise)
    torch.manual_seed(noise)
    assert tried(searched(sampler, seed=seed)) == undisturbed


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_and_arms_draw_points_of_their_own(sampler):
    arms = tuple(Arm(name=name, learning_rate=RATE, perturbation=PERTURBED) for name in ("adamw", "sine"))
    searches = [searched(sampler, arms=arms, seed=seed, place=place) for seed in (0, 1) for place in (0, 1)]
    first = [search.ask()[1]["learning_rate"] for search in searches]
    assert len(set(first)) == 4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_point_lies_in_its_space_and_is_worth_a_training(sampler):
    budget = 8 if sampler == "gp" else 24  # it takes half a second a point
    points = tried(searched(sampler, budget=budget))
    assert len(points) == budget
    assert all(1e-4 <= point["learning_rate"] <= 1e-1 for point in points)
    assert all(0 <= point["perturbation.lambda_"] <= 2 for point in points)
    assert {point["perturbation.n_qubits"] for point in points} <= {2, 4, 6}
    assert len({tuple(point.values()) for point in points}) >= 0.75 * budget, "hardly any point is tried twice"


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsga2"])
def test_a_sampler_that_learns_ends_nearer_to_the_best_than_it_began(sampler):
    """Over twelve seeds; a sampler that learns nothing would do so with odds of one half."""
    gained = []
    for seed in range(12):
        qualities = [quality(point) for point in tried(searched(sampler, seed=seed, budget=32))]
        third = len(qualities) // 3
        gained.append(np.mean(qualities[-third:]) - np.mean(qualities[:third]))
    assert np.mean(gained) > 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_conditional_space_is_asked_as_far_as_it_goes_and_again_the_same(sampler):
    def went(search: ArmSearch) -> list[dict]:
        points = []
        while search.n_left:
            number, point = search.ask()
            search.tell(number, [point["learning_rate"]])
            points.append(point)
        return points

    budget = 5 if sampler == "gp" else 20
    arms = (CONDITIONAL,)
    points = went(searched(sampler, arms=arms, budget=budget))
    assert points == went(searched(sampler, arms=arms, budget=budget))
    assert all(CONDITIONAL.at(point).spaces() == {} for point in points)
    assert len({point["perturbation.source"] for point in points}) > 1


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "cmaes"])
def test_several_objectives_are_told_and_one_that_failed_at_once_costs_as_much_as_the_dearest(sampler):
    study = a_study(
        arms=(Arm(name="adamw", learning_rate=RATE),),
        search=Search(
            trials_per_arm=8, epochs=1, grace_epochs=1, sampler=sampler, objectives=("quality", "circuits", "step_time")
        ),
    )

    def went() -> list[dict]:
        search, points = ArmSearch(study, 0, {}), []
        while search.n_left:
            number, point = search.ask()
            rate = point["learning_rate"]
            search.tell(number, [0.0, None, None] if number in (0, 3) else [rate, -np.log(rate), 1.0])
            points.append(point)
        return points

    assert went() == went()


def test_a_lost_trial_rests_the_arm():
    search = searched("tpe")
    (first, _), (second, _) = search.ask(), search.ask()
    assert (first, second, search.n_running, search.n_left) == (0, 1, 2, 4)
    search.tell(first, None)
    assert (search.n_running, search.n_left) == (1, 0)
