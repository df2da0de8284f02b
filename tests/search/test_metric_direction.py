"""Searches by a metric of which less is better: mirrored values lead to the same points, stops and choices."""

import math
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.tune.schedulers import TrialScheduler
from support.own_metrics import by_penalty, by_score, scored
from support.synthetic_results import Made, Run, a_study, lost, made, outcome_of, runs

from qsgd_ray.analysis.objectives import RunResult, objective_values, quality
from qsgd_ray.config import ACCURACY, Decision, Metric, Search
from qsgd_ray.config.trial import search_trials
from qsgd_ray.execution.trainable import EPOCH, SCORE
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results
from qsgd_ray.search._arm_search import ArmSearch
from qsgd_ray.search.observations import _observed_points, best_point
from qsgd_ray.search.optuna_journal import FILE, open_journal
from qsgd_ray.search.tune import _ArmHalvings, _ArmSearches

ONE = Search(trials_per_arm=12, epochs=9, grace_epochs=1)


def pair(search=ONE):
    """The same study by a score and by its mirror image."""
    study = a_study(["adam", "sine"], 2, search=search)
    return by_score(study), by_penalty(study)


def tried(study, value_of, cost=()):
    """The points that a search of the first arm tries where these values are told."""
    search, points = ArmSearch(study, 0, {}), []
    while search.n_left:
        number, point = search.ask()
        points.append(point)
        search.tell(number, [value_of(number, point["learning_rate"]) * study.metric.sign, *cost])
    return points


def hill(number, rate):
    """A value that is best at one rate; every fifth run has none."""
    return -math.inf if number % 5 == 2 else -abs(math.log10(rate) + 2.5)


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc", "cmaes", "nsga2"])
def test_mirrored_values_lead_every_sampler_to_the_same_points(sampler):
    score, penalty = pair(ONE.model_copy(update={"sampler": sampler}))
    assert tried(penalty, hill) == tried(score, hill)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_only_quality_turns_round_where_there_are_costs(sampler):
    score, penalty = pair(ONE.model_copy(update={"sampler": sampler, "objectives": ("quality", "circuits")}))
    assert tried(penalty, hill, cost=(3.0,)) == tried(score, hill, cost=(3.0,))


def test_tune_is_told_the_direction(tmp_path):
    for study, mode in zip(pair(), ("max", "min"), strict=True):
        results = Results(tmp_path / mode)
        results.open(a_study(["adam", "sine"], 2, search=ONE), {})
        tables = results.tables()
        searches = _ArmSearches(scored(tables, study))
        assert searches.mode == mode


def decisions(study, curves):
    """What the halving answers to trials that report side by side, epoch by epoch."""
    halvings, answers = _ArmHalvings(study), []
    trials = [
        SimpleNamespace(temporary_state=Mock(), trial_id=str(i), config={"arm": "adam"}) for i in range(len(curves))
    ]
    for trial in trials:
        halvings.on_trial_add(None, trial)
    for epoch in range(1, 9):
        for trial, curve in zip(trials, curves, strict=True):
            result = {EPOCH: epoch, SCORE: study.metric.sign * curve[epoch - 1]}
            answers.append(halvings.on_trial_result(None, trial, result))
    return answers


VALUES = st.one_of(st.just(-math.inf), st.floats(-5, 5).map(lambda x: round(x, 2)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(VALUES, min_size=8, max_size=8), min_size=2, max_size=7))
def test_mirrored_values_are_halved_alike(curves):
    score, penalty = pair()
    assert decisions(penalty, curves) == decisions(score, curves)


def test_a_trial_whose_runs_have_no_value_is_stopped_by_the_halving():
    _, penalty = pair()
    good, bad = [-3.0] * 8, [-math.inf] * 8
    answers = decisions(penalty, [good, good, good, bad])
    assert answers[:4] == [TrialScheduler.CONTINUE] * 3 + [TrialScheduler.STOP]


@given(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=1, max_size=8))
def test_quality_is_mirrored_and_a_missing_value_is_the_worst(values):
    score, penalty = (study.metric for study in pair())
    left = quality([RunResult(value) for value in values], score)
    right = quality([RunResult(value and -value) for value in values], penalty)
    assert right == pytest.approx(-left) or (math.isinf(left) and right == -left)
    if None in values and len(values) < 4:
        assert left == -math.inf


@pytest.mark.parametrize(
    ("metric", "missing"),
    [
        (ACCURACY, 0.0),
        (Metric("error", kind="share", direction="min"), 1.0),
        (Metric("loss", direction="min"), math.inf),
        (Metric("score"), -math.inf),
    ],
)
@pytest.mark.parametrize("value", [None, math.nan])
def test_a_run_without_a_value_counts_with_the_worst_one(metric, missing, value):
    assert objective_values([RunResult(value)], ("quality",), metric) == [missing]


def stored(study, tmp_path):
    """Tables of a search of this study, by its metric."""
    plain = a_study(["adam", "sine"], 2, search=study.search)
    path = made({"adam": runs([0.8, 0.8])}, study=plain, searched=True).write(tmp_path)
    return Results(path).tables(plain)


def test_the_best_point_is_the_same_and_not_the_worst(tmp_path):
    plain = a_study(["adam", "sine"], 2, search=Search(trials_per_arm=12, epochs=6))
    tables = stored(plain, tmp_path)
    best = best_point(plain, plain.arm("adam"), tables.trials.to_pylist())
    rows = [row for row in tables.rows("search", "adam") if row["ending"] == "completed"]
    assert best == {"learning_rate": max(rows, key=lambda row: row["validation_accuracy"])["learning_rate"]}
    by_loss = plain.model_copy(update={"decision": Decision(metric="loss", margin=0.1)})
    assert best_point(by_loss, plain.arm("adam"), tables.trials.to_pylist()) is None  # rows of another search


def test_observations_have_the_decisions_metric(tmp_path):
    study = a_study(
        ["adam"], 2, search=Search(trials_per_arm=4, epochs=6), decision=Decision(metric="loss", margin=0.1)
    )
    tables = made({"adam": runs([0.8, 0.8])}, study=study, searched=True).tables()
    observed = _observed_points(study, tables.trials.to_pylist())["adam"]
    assert len(observed) == 4
    ended = [one for one in observed if one.ending is not None]
    for one in ended:
        (row,) = one.rows.values()
        assert quality(one.results, study.metric) == row["validation_loss"]
    completed = [one for one in ended if one.ending == "completed"]
    lowest = min(completed or ended, key=lambda one: one.loss)
    assert best_point(study, study.arm("adam"), tables.trials.to_pylist()) == lowest.point


def test_an_infinite_quality_is_kept_in_the_journal(tmp_path):
    study = a_study(
        ["adam"], 2, search=Search(trials_per_arm=3, epochs=6, seeds=(1, 2)), decision=Decision(metric="loss", margin=1)
    )
    ends = (Run(0.8), lost(Ending.FAILED))
    rows = [
        (trial, outcome_of(trial, run))
        for number in range(3)
        for trial, run in zip(search_trials(study, "adam", number, {"learning_rate": 1e-3}), ends, strict=True)
    ]
    for _ in range(2):  # the second time it is as in its rows
        open_journal(Made(study, rows).tables(), tmp_path / FILE)
        storage = JournalStorage(JournalFileBackend(str(tmp_path / FILE)))
        (shown,) = storage.get_all_studies()
        assert [trial.value for trial in storage.get_all_trials(shown._study_id)] == [math.inf] * 3


def test_the_journal_of_another_direction_is_made_anew(tmp_path):
    fields = {"search": Search(trials_per_arm=4, epochs=6)}
    for decision, direction in ((Decision(margin=0.01), "MAXIMIZE"), (Decision(metric="loss", margin=0.1), "MINIMIZE")):
        study = a_study(["adam"], 2, decision=decision, **fields)
        open_journal(made({"adam": runs([0.8, 0.8])}, study=study, searched=True).tables(), tmp_path / FILE)
        storage = JournalStorage(JournalFileBackend(str(tmp_path / FILE)))
        (shown,) = storage.get_all_studies()
        assert [one.name for one in shown.directions] == [direction]
        values = [t.value for t in storage.get_all_trials(shown._study_id) if t.value is not None]
        assert all(value > 1 for value in values) == (direction == "MINIMIZE")
