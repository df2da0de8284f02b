"""Halvings of an arm's trials: brackets of Hyperband, what each stops, and a scheduler that stops nothing."""

import math
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler
from support.small_study import a_study

from qsgd_ray.config import Search
from qsgd_ray.execution.trainable import EPOCH, SCORE
from qsgd_ray.search._halving import _ArmHalvings, bracket_of, grace_epochs_of_brackets


def search(**fields) -> Search:
    return Search(**{"trials_per_arm": 30, "epochs": 9, "grace_epochs": 1, "scheduler": "hyperband"} | fields)


def test_brackets_are_those_of_the_paper():
    """Li et al. 2018, algorithm 1, with R = 81 and eta = 3: 81, 34, 15, 8 and 5 trials from 1, 3, 9, 27, 81 epochs."""
    large = search(epochs=81)
    assert grace_epochs_of_brackets(large) == (1, 3, 9, 27, 81)
    numbers = [bracket_of(large, number) for number in range(81 + 34 + 15 + 8 + 5)]
    assert [numbers.count(bracket) for bracket in range(5)] == [81, 34, 15, 8, 5]


@pytest.mark.parametrize(("scheduler", "graces"), [("asha", (2,)), ("none", (2,)), ("hyperband", (2, 6, 7))])
def test_without_hyperband_there_is_one_bracket(scheduler, graces):
    assert grace_epochs_of_brackets(search(scheduler=scheduler, grace_epochs=2, epochs=7)) == graces


@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 5), st.integers(0, 200))
def test_every_prefix_of_trials_is_divided_in_the_ratio_of_the_brackets(epochs, grace, factor, n):
    one = search(epochs=epochs, grace_epochs=min(epochs, grace), reduction_factor=factor)
    graces = grace_epochs_of_brackets(one)
    assert graces == tuple(sorted(set(graces)))
    assert graces[-1] == epochs
    shares = [math.ceil(len(graces) / (s + 1) * factor**s) for s in reversed(range(len(graces)))]
    numbers = [bracket_of(one, number) for number in range(n)]
    for bracket, share in enumerate(shares):
        assert abs(numbers.count(bracket) - n * share / sum(shares)) < len(graces)


def decisions(study, curves: list[list[float]]) -> dict[int, int]:
    """The epochs that trials run one after the other, each until it is stopped."""
    halvings, ran = _ArmHalvings(study), {}
    for number, curve in enumerate(curves):
        trial = SimpleNamespace(temporary_state=Mock(), trial_id=str(number), config={"arm": "adamw", "number": number})
        halvings.on_trial_add(None, trial)
        for epoch, score in enumerate(curve, 1):
            result = {EPOCH: epoch, SCORE: score}
            ran[number] = epoch
            if halvings.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                break
        halvings.on_trial_complete(None, trial, result)
    return ran


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "bohb", "none"])
def test_a_trial_is_stopped_at_the_rungs_of_its_bracket_alone(scheduler):
    """Of ever worse trials each one that can be stopped is, except the first of a bracket."""
    study = a_study(search=search(scheduler=scheduler))
    ran = decisions(study, [[1 - 0.01 * number] * 9 for number in range(30)])
    graces = grace_epochs_of_brackets(study.search)
    several = len(graces) > 1
    for bracket, grace in enumerate(graces):
        epochs = [ran[n] for n in range(30) if not several or bracket_of(study.search, n) == bracket]
        assert epochs[0] == 9
        assert set(epochs[1:]) == {9 if scheduler == "none" else grace}


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "bohb", "none"])
def test_the_same_trials_are_stopped_at_the_same_epochs(scheduler):
    study = a_study(search=search(scheduler=scheduler))
    curves = [[math.sin(7.1 * number + epoch) for epoch in range(9)] for number in range(30)]
    assert decisions(study, curves) == decisions(study, curves)
