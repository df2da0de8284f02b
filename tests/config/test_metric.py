"""Metrics of a task and of a decision: what is refused, what is stored, and which names of trials stay as they were."""

import json
import runpy

import pytest
from support.places import ROOT
from support.synthetic_results import CHOSEN, a_study

from qsgd_ray.config import (
    ACCURACY,
    Decision,
    LanguageTask,
    Metric,
    Search,
    Study,
    StudyError,
    TextTask,
    metric_label,
    metrics_of,
)
from qsgd_ray.config.base import Choice
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import choice_key, confirm_trials, map_trials, search_key, search_trial
from qsgd_ray.results._versions import differences


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "2nd"}, "Metric.name: got '2nd'; allowed: "),
        ({"name": "loss", "direction": "down"}, "Metric.direction: got 'down'; allowed: 'max' or 'min'"),
        ({"name": "f1", "kind": "share", "unit": "%"}, "unit: none for a share, which is shown in percent; got '%'"),
        ({"name": "f1", "kind": "share", "target": 90.0}, "target: in (0, 1) for a share; got 90"),
        ({"name": "energy", "unit": "a\nb"}, "unit: printable characters other than <>[]{}&\"'\\; got 'a\\nb'"),
        ({"name": "energy", "unit": "[red]"}, "unit: printable characters other than <>[]{}&\"'\\; got '[red]'"),
        ({"name": "energy", "unit": "<b>"}, "unit: printable characters other than <>[]{}&\"'\\; got '<b>'"),
        ({"name": "energy", "unit": "m" * 21}, "Metric.unit: got 'mmmm"),
        ({"name": "energy", "kind": "rate"}, "Metric.kind: got 'rate'; allowed: 'share', 'mean', 'sum' or 'geometric'"),
        ({"name": "energy", "target": float("nan")}, "Metric.target: got nan; allowed: "),
        ({}, "Metric.name: got nothing; allowed: a value, this field is required"),
    ],
)
def test_a_wrong_metric_is_refused_in_one_line(fields, message):
    with pytest.raises(StudyError) as caught:
        Metric(**fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_metric_may_be_named_without_a_keyword():
    assert Metric("energy", direction="min", unit="Hartree") == Metric(name="energy", direction="min", unit="Hartree")


@pytest.mark.parametrize("task", [TextTask(target_accuracy=0.8), LanguageTask(target_accuracy=0.8)])
def test_text_and_language_tasks_measure_accuracy_and_loss(task):
    accuracy, loss = metrics_of(task)
    assert accuracy == Metric("accuracy", kind="share", target=0.8)
    assert (loss.name, loss.direction, loss.kind, loss.unit, loss.target) == ("loss", "min", "mean", "nats", None)
    assert metric_label(task, accuracy) == task.accuracy_name
    assert metric_label(task, loss) == "loss"


def test_what_a_task_measured_comes_before_its_metrics():
    class Own:
        measured = (Metric("tail_energy", direction="min"),)

        def metrics(self, model, batch):
            raise AssertionError("a method of the user's, no list of metrics")

    assert metrics_of(Own()) == Own.measured
    assert metric_label(Own(), Own.measured[0]) == "tail energy"


@pytest.mark.parametrize(
    ("metric", "value", "reached"),
    [
        (Metric("score", target=2.0), 2.0, True),
        (Metric("score", target=2.0), 1.9, False),
        (Metric("error", direction="min", target=2.0), 2.0, True),
        (Metric("error", direction="min", target=2.0), 2.1, False),
        (Metric("score", target=2.0), None, False),
        (Metric("score"), 1e9, False),
    ],
)
def test_a_target_is_reached_from_the_side_that_is_worse(metric, value, reached):
    assert metric.reaches_target(value) == reached


def test_the_worst_value_of_a_share_is_an_end_of_its_range():
    assert (ACCURACY.worst, Metric("error", kind="share", direction="min").worst) == (0.0, 1.0)
    assert (Metric("score").worst, Metric("error", direction="min").worst) == (-float("inf"), float("inf"))


def with_decision(**fields):
    return a_study(["adam", "sine"], 2, decision=Decision(**fields))


def test_the_decision_is_by_the_first_metric_unless_it_names_one():
    assert with_decision(margin=0.01).metric == Metric("accuracy", kind="share", target=0.8)
    assert with_decision(margin=0.01, metric="accuracy").metric.name == "accuracy"
    assert with_decision(margin=3.5, metric="loss").metric.name == "loss"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin": 0.01, "metric": "f1"}, "decision.metric: a metric of the workload (accuracy, loss); got 'f1'"),
        ({"margin": 1.0}, "decision.margin: below 1, as accuracy is a share; got 1"),
        ({"margin": 2.5, "metric": "accuracy"}, "decision.margin: below 1, as accuracy is a share; got 2.5"),
        ({"margin": 0.0, "metric": "loss"}, "Decision.margin: got 0.0; allowed: greater than 0"),
    ],
)
def test_a_decision_that_does_not_go_with_the_workload_is_refused(fields, message):
    with pytest.raises(StudyError) as caught:
        with_decision(**fields)
    assert message in str(caught.value)


def test_a_tolerance_is_in_the_unit_of_the_metric():
    search = Search(trials_per_arm=2, epochs=6, objectives=("quality", "circuits"), tolerance=1.5)
    assert a_study(["adam"], 2, search=search, decision=Decision(metric="loss", margin=0.1)).search.tolerance == 1.5
    with pytest.raises(StudyError, match=r"search\.tolerance: below 1, as accuracy is a share; got 1\.5"):
        a_study(["adam"], 2, search=search)


def test_a_decision_without_a_metric_is_stored_as_it_was():
    assert Decision(margin=0.01).model_dump() == {"margin": 0.01, "alpha": 0.05, "power": 0.8}
    study = with_decision(margin=0.01)
    assert "metric" not in json.loads(study.model_dump_json())["decision"]


@pytest.mark.parametrize("metric", [None, "accuracy", "loss"])
def test_a_decision_is_itself_after_json(metric):
    study = with_decision(margin=0.01, metric=metric)
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_the_metric_can_be_set_from_the_command_line():
    study = with_overrides(with_decision(margin=0.01), ["decision.metric=loss", "decision.margin=2"])
    assert (study.metric.name, study.decision.margin) == ("loss", 2.0)


def test_another_metric_is_a_change_of_the_study():
    old, new = (with_decision(margin=0.01, metric=name).model_dump(mode="json") for name in (None, "loss"))
    assert [*differences(old, new)] == ['decision.metric "loss" added']


def test_another_metric_is_another_search_of_the_same_confirmation():
    usual, named, by_loss = (with_decision(margin=0.01, metric=name) for name in (None, "accuracy", "loss"))
    keys = [search_key(study, "adam", None) for study in (usual, named, by_loss)]
    assert keys[0] == keys[1] != keys[2]
    point = {"learning_rate": CHOSEN["learning_rate"]}
    ids = [{trial.trial_id for trial in confirm_trials(study, "adam", point)} for study in (usual, named, by_loss)]
    assert ids[0] == ids[1] == ids[2]


# Taken with the version before decisions had a metric: search keys without and with a budget, the key of the choice,
# the first trial of search and confirmation at the first value of every space; then the first trial of the map.
_NAMES = json.loads((ROOT / "tests/config/trial_names.json").read_text())


@pytest.mark.parametrize("name", _NAMES)
def test_studies_of_before_keep_the_names_of_their_trials(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "studies")
    file, _, scale = name.partition(":")
    values = runpy.run_path(str(ROOT / f"studies/{file}.py"))
    study = values["SCALES"][scale] if scale else values["STUDY"]
    points = {arm.name: first_point(arm) for arm in study.arms}
    names = {arm.name: names_of(study, arm, points[arm.name]) for arm in study.arms}
    if mapped := map_trials(study, points):
        names["map"] = [mapped[0].trial_id, mapped[-1].trial_id]
    assert names == _NAMES[name]


def first_point(arm):
    """The point of the first value of every space."""
    point = {}
    while left := [(path, space) for path, space in arm.spaces_at(point).items() if path not in point]:
        path, space = left[0]
        point[path] = space.options[0] if isinstance(space, Choice) else space.low
    return point


def names_of(study, arm, point):
    """Keys and trial ids that rows of a study are found by."""
    names = [
        search_key(study, arm.name, None),
        search_key(study, arm.name, study.search.trials_per_arm),
        choice_key(study, arm.name),
        confirm_trials(study, arm.name, point)[0].trial_id,
    ]
    return [*names, search_trial(study, arm.name, 0, point).trial_id] if arm.spaces() else names
