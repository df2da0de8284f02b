"""A map's settings: every combination once, or points that fill the space; what a setting does to arm and workload."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.small_study import SMALL_TASK, a_study

from qsgd_ray.config import Arm, Confirm, LogUniform, Map, Perturbation, Search, Study, StudyError, Uniform
from qsgd_ray.config._map_settings import _with_fields, map_settings, with_setting
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.stages import baseline_setting, setting_name
from qsgd_ray.config.trial import map_trials

AXES = {"perturbation.n_qubits": (2, 3, 4), "perturbation.lambda_": (0.5, 50.0), "workload.length": (8, 16)}
POINTS = {"adamw": {"learning_rate": 2e-3}, "sine": {"learning_rate": 5e-3}}


def a_map(**fields) -> Map:
    return Map(**{"arm": "sine", "axes": AXES, "seeds": (31, 32), "epochs": 2} | fields)


def mapped(**fields) -> Study:
    return a_study(map=a_map(**fields))


values = st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True).map(tuple)


@given(st.dictionaries(st.sampled_from(["a", "b.c", "d", "e.f.g"]), values, min_size=1))
def test_a_grid_has_every_combination_once(axes):
    found = map_settings(a_map(axes=axes))
    n = 1
    for axis in axes.values():
        n *= len(axis)
    assert len(found) == n == len({setting_name(setting) for setting in found})
    for path, axis in axes.items():
        assert {setting[path] for setting in found} == set(axis)
        assert all(list(setting) == list(axes) for setting in found)


@given(st.integers(1, 64), st.integers(0, 3))
def test_filling_points_lie_on_their_axes_and_are_the_same_for_the_same_seed(n, seed):
    axes = {
        "learning_rate": LogUniform(low=1e-4, high=1e-1),
        "perturbation.lambda_": Uniform(low=1, high=3),
        "perturbation.scope": ("model", "tensor"),
    }
    design = a_map(axes=axes, n_points=n, seed=seed)
    found = map_settings(design)
    assert len(found) == n
    assert found == map_settings(design)
    for setting in found:
        assert 1e-4 <= setting["learning_rate"] <= 1e-1
        assert 1 <= setting["perturbation.lambda_"] <= 3
        assert setting["perturbation.scope"] in ("model", "tensor")


def test_sixteen_filling_points_have_one_in_every_sixteenth_of_a_range():
    found = map_settings(a_map(axes={"learning_rate": LogUniform(low=1.0, high=2.0**16)}, n_points=16))
    from math import log2

    assert sorted(int(log2(setting["learning_rate"])) for setting in found) == list(range(16))


def test_a_setting_reaches_arm_and_workload_and_leaves_the_rest():
    arm = Arm(name="sine", learning_rate=1e-3, perturbation=Perturbation(source="sine"))
    setting = {"perturbation.lambda_": 7.0, "learning_rate": 0.5, "workload.model.d_model": 16}
    there, workload = with_setting(arm, SMALL_TASK, setting)
    assert (there.perturbation.lambda_, there.learning_rate, workload.model.d_model) == (7.0, 0.5, 16)
    assert there.model_copy(update={"perturbation": arm.perturbation, "learning_rate": 1e-3}) == arm
    assert baseline_setting(setting) == {"learning_rate": 0.5, "workload.model.d_model": 16}
    assert _with_fields(arm, {}) is arm
    for path in ("frob", "perturbation.frob", "learning_rate.low", "perturbation.noise.p01"):
        with pytest.raises(KeyError, match=path):
            _with_fields(arm, {path: 1})


def test_the_baseline_meets_every_setting_once_without_the_axes_it_lacks():
    study = mapped()
    assert len(study.map_settings("sine")) == 12
    assert study.map_settings("adamw") == ({"workload.length": 8}, {"workload.length": 16})
    assert a_study().map_settings("adamw") == ()
    assert [study.planned("map", arm) for arm in study.arms] == [4, 24]
    assert a_study().planned("map", study.arms[0]) == 0


def test_the_trials_of_a_map_are_each_one_of_its_own_and_say_their_setting():
    study = mapped()
    trials = map_trials(study, POINTS)
    assert len({trial.trial_id for trial in trials}) == len(trials) == 28
    assert [trial.seed for trial in trials] == sorted(trial.seed for trial in trials)
    for name, count in (("adamw", 4), ("sine", 24)):
        assert sorted(t.number for t in trials if t.arm.name == name) == list(range(count))
    for trial in trials:
        setting = json.loads(trial.setting)
        assert trial.workload.length == setting["workload.length"]
        assert trial.arm.learning_rate == POINTS[trial.arm.name]["learning_rate"]
        assert not trial.reads_test
        if trial.arm.perturbation is not None:
            assert trial.arm.perturbation.n_qubits == setting["perturbation.n_qubits"]
    assert map_trials(study, {"sine": POINTS["sine"]}) == []
    assert map_trials(a_study(), POINTS) == []


def test_an_axis_takes_the_place_of_what_was_searched():
    study = a_study(map=a_map(axes={"learning_rate": (1e-3, 1e-1)}))
    assert {trial.arm.learning_rate for trial in map_trials(study, POINTS)} == {1e-3, 1e-1}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"arm": "adamw"}, "map.arm: an arm beside the baseline (sine); got 'adamw'"),
        ({"arm": "frob"}, "map.arm: an arm beside the baseline (sine); got 'frob'"),
        ({"seeds": (0, 1)}, "map.seeds: disjoint from search.seeds; got 0 in both"),
        (
            {"axes": {"perturbation.frob": (1,)}},
            "map.axes: fields of the arm sine or, below workload, of the workload; ",
        ),
        (
            {"axes": {"workload.frob": (1,)}},
            "map.axes: fields of the arm sine or, below workload, of the workload; got",
        ),
        ({"axes": {"perturbation.n_qubits": (0,)}}, "map.axes: settings that a trial can have; of {'perturbation.n_qu"),
        (
            {"axes": {"workload.batch_size": (33,)}, "workers": 2},
            "map.workers: a divisor of every batch size; got 2 for",
        ),
        (
            {"axes": {"learning_rate": LogUniform(low=1, high=2)}},
            "axes.learning_rate: a list of values, or a range tog",
        ),
        ({"axes": {"learning_rate": (1, 1)}}, "each value once"),
    ],
)
def test_a_map_that_cannot_be_run_is_refused_in_one_line(fields, told):
    with pytest.raises(ValidationError) as refused:
        mapped(**fields)
    assert told in str(refused.value)


def test_a_map_survives_json_and_is_changed_from_the_command_line():
    study = mapped(axes={"learning_rate": LogUniform(low=1e-4, high=1e-2), "perturbation.scope": ("all",)}, n_points=5)
    assert Study.model_validate_json(study.model_dump_json()) == study
    changed = with_overrides(study, ["map.n_points=7", "map.seeds=[41]"])
    assert len(changed.map_settings("sine")) == 7
    with pytest.raises(StudyError, match=r"map\.epochs: got 0"):
        with_overrides(study, ["map.epochs=0"])


def test_the_seeds_of_a_map_may_be_those_of_the_confirmation_but_not_of_the_search():
    study = a_study(
        search=Search(trials_per_arm=2, epochs=2, grace_epochs=1, seeds=(5,)),
        confirm=Confirm(seeds=(31, 32), epochs=2),
        map=a_map(),
    )
    assert study.map.seeds == study.confirm.seeds
