"""The search: every arm by itself, a function of the study alone, with every ending in a row and workers given back."""

import random
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from support.outcomes import OUTCOME, measured
from support.run_contexts import make_context, quiet, timeless
from support.searches import SAMPLERS, shown
from support.simulated_search import RATE, THREE, simulated
from support.small_study import SMALL_TASK, a_study

from qsgd_ray.config import Arm, Choice, Decision, Perturbation, Resources, Search
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import search_trial
from qsgd_ray.execution.trainable import SCORE, _train_on_workers
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.search.observations import best_point, unfinished_points
from qsgd_ray.search.optuna_journal import FILE
from qsgd_ray.search.tune import _ArmHalvings, _ArmSearches, run_search
from qsgd_ray.training.loop import run


def rows_of(results: Results) -> list[dict]:
    return [timeless(row) for row in results.all_tables().trials.to_pylist()]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_arms_finish_does_not_change_what_any_arm_tries(tmp_path_factory, order):
    results = Results(tmp_path_factory.mktemp("none") / "three")
    results.open(THREE, {})
    assert simulated(THREE, results, order) == simulated(THREE, results, random.Random(0))


def test_every_arm_gets_its_budget_and_its_own_points(tmp_path):
    results = Results(tmp_path)
    results.open(THREE, {})
    points = simulated(THREE, results, random.Random(1))
    assert {arm: len(given) for arm, given in points.items()} == {"adamw": 6, "sine": 6, "fixed": 0}
    assert [THREE.planned("search", arm) for arm in THREE.arms] == [6, 6, 0]
    rates = {arm: [one["point"].get("learning_rate") for one in given] for arm, given in points.items()}
    assert not set(rates["adamw"]) & set(rates["sine"])
    assert [one["number"] for one in points["sine"]] == list(range(6))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_of_several_at_once_that_goes_on_draws_no_point_twice(tmp_path, sampler):
    study = with_overrides(THREE, ["search.trials_at_once_per_arm=2", f"search.sampler={sampler}"])
    results = Results(tmp_path)
    results.open(study, {})
    first = simulated(study, results, random.Random(1))["adamw"][:2]
    for kept in first:
        results.write(search_trial(study, "adamw", kept["number"], kept["point"]), OUTCOME)
    again = simulated(study, results, random.Random(1))["adamw"]
    assert again[:2] == first
    assert [one["number"] for one in again] == list(range(6))
    assert len({one["point"]["learning_rate"] for one in again}) == 6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_largest_seed_is_one_that_every_sampler_takes(tmp_path, sampler):
    study = with_overrides(THREE, [f"seed={2**32 - 1}", f"search.sampler={sampler}"])
    results = Results(tmp_path)
    results.open(study, {})
    assert len(simulated(study, results, random.Random(1))["sine"]) == 6


def test_an_arm_that_lost_a_trial_rests_and_the_others_go_on(tmp_path):
    results = Results(tmp_path)
    results.open(THREE, {})
    searches = _ArmSearches(results.tables(THREE))
    first, second = searches.suggest("a"), searches.suggest("b")
    assert (first["arm"], second["arm"]) == ("adamw", "sine")
    searches.on_trial_complete("a", error=True)
    assert searches.suggest("c") is None
    searches.on_trial_complete("b", {SCORE: 0.5, "training_iteration": 1})
    assert searches.suggest("e")["arm"] == "sine"


class Broken:
    """Circuits that nobody answers."""

    def submit(self, spec, angles_bdnr, readout="z", keys_b=None):
        raise ZeroDivisionError("planted")


ENDINGS = a_study(
    arms=(
        Arm(name="adamw", learning_rate=RATE),
        Arm(name="far", perturbation=Perturbation(source="sine", lambda_=Choice(options=(1e38, 1e37)), scope="all")),
        Arm(name="broken", learning_rate=RATE, perturbation=Perturbation(source="circuit")),
    ),
    search=Search(trials_per_arm=3, epochs=4, grace_epochs=1, reduction_factor=2, seeds=(0, 1)),
)


# A trial that asks for more than half of the cluster runs alone, so one process serves all, which starts soonest.
ALONE = Resources(cpus_per_worker=2.6)


@pytest.fixture(scope="module")
def searched(cluster, tmp_path_factory):
    context = make_context(tmp_path_factory.mktemp("searched") / "small", cluster, circuits=Broken(), resources=ALONE)
    run_search(context.results.tables(ENDINGS), context)
    return context


def test_every_trial_has_its_row_whatever_its_ending(searched):
    endings = {}
    for row in rows_of(searched.results):
        endings.setdefault(row["arm"], []).append(row["ending"])
    assert endings["far"] == [Ending.DIVERGED] * 6
    assert endings["broken"] == [Ending.FAILED] * 6
    assert len(endings["adamw"]) == 6
    assert set(endings["adamw"]) <= {Ending.COMPLETED, Ending.STOPPED_EARLY}
    errors = [row["error"] for row in rows_of(searched.results) if row["arm"] == "broken"]
    assert all("ZeroDivisionError: planted" in error and "in submit" in error for error in errors)
    assert not unfinished_points(searched.results.tables(ENDINGS))


def test_a_search_is_shown_as_its_rows_say(searched):
    seen = shown(searched.results.path / FILE)
    assert {arm: [trial[:2] for trial in trials] for arm, trials in seen.items() if arm != "adamw"} == {
        arm: [(number, TrialState.FAIL) for number in range(3)] for arm in ("far", "broken")
    }
    rows = {row["number"]: row["ending"] for row in rows_of(searched.results) if row["arm"] == "adamw"}
    states = {Ending.COMPLETED: TrialState.COMPLETE, Ending.STOPPED_EARLY: TrialState.PRUNED}
    assert {trial[0]: trial[1] for trial in seen["adamw"]} == {n: states[ending] for n, ending in rows.items()}


def test_a_search_by_loss_tries_halves_and_chooses_by_it(cluster, tmp_path):
    """Runs that diverge have an infinite loss, which neither the halving nor the journal stumbles over."""
    study = ENDINGS.model_copy(update={"decision": Decision(metric="loss", margin=0.05)})
    context = make_context(tmp_path / "small", cluster, circuits=Broken(), resources=ALONE)
    run_search(context.results.tables(study), context)
    tables = context.results.tables(study)
    assert not unfinished_points(tables)
    seen = shown(context.results.path / FILE)
    assert {arm: {trial[1] for trial in trials} for arm, trials in seen.items() if arm != "adamw"} == {
        arm: {TrialState.FAIL} for arm in ("far", "broken")
    }
    losses: dict[tuple[str, int], list[float]] = {}
    for row in tables.rows("search", "adamw"):
        losses.setdefault((row["ending"], row["number"]), []).append(row["validation_loss"])
    completed = {number: np.mean(values) for (ending, number), values in losses.items() if ending == "completed"}
    lowest = min(completed, key=completed.get)
    rate = next(row["learning_rate"] for row in tables.rows("search", "adamw") if row["number"] == lowest)
    assert best_point(study, study.arm("adamw"), tables.trials.to_pylist()) == {"learning_rate": rate}
    values = {trial.number: trial.value for trial in journal(context.results.path / FILE, "adamw")}
    assert values[lowest] == pytest.approx(completed[lowest])


def journal(path: Path, arm: str):
    """The trials of an arm in the journal that have a value."""
    study = optuna.load_study(study_name=arm, storage=JournalStorage(JournalFileBackend(str(path))))
    assert study.direction.name == "MINIMIZE"
    return [trial for trial in study.trials if trial.state is TrialState.COMPLETE]


def interrupted(searched, cluster, folder: Path, keep: int, resources: Resources):
    """A context with the rows of the first `keep` trials of each arm, and of one that was cut off between its rows."""
    context = make_context(folder / "small", cluster, circuits=Broken(), resources=resources)
    for row in searched.results.all_tables().trials.to_pylist():
        if row["number"] < keep or (row["arm"], row["number"], row["seed"]) == ("adamw", keep, 0):
            for table in ("trials", "measurements"):
                name = f"{row['trial_id']}.parquet"
                (context.results.path / table / name).write_bytes((searched.results.path / table / name).read_bytes())
    return context


def test_a_search_goes_on_where_it_was_cut_off_and_ends_with_the_same_rows(searched, cluster, tmp_path):
    """The rows that are trained again are the same as well: with one trial at a time the search is deterministic."""
    context = interrupted(searched, cluster, tmp_path, keep=1, resources=ALONE)
    kept = {path: path.stat().st_mtime_ns for path in (context.results.path / "trials").iterdir()}
    assert len(kept) == 7
    assert unfinished_points(context.results.tables(ENDINGS)) == {"adamw": 2, "far": 2, "broken": 2}
    run_search(context.results.tables(ENDINGS), context)
    assert [{**row, "error": None} for row in rows_of(context.results)] == [
        {**row, "error": None} for row in rows_of(searched.results)
    ]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "no finished trial was trained again"


def test_with_several_trials_at_once_an_interrupted_search_spends_its_budget_exactly(searched, cluster, tmp_path):
    study = ENDINGS.model_copy(update={"search": ENDINGS.search.model_copy(update={"trials_at_once_per_arm": 2})})
    context = make_context(tmp_path / "small", cluster, circuits=Broken(), resources=Resources())
    for arm in study.arms:
        context.results.write(
            search_trial(study, arm.name, 0, {path: s.edges()[0] for path, s in arm.spaces().items()}), OUTCOME
        )
    kept = set((context.results.path / "trials").iterdir())
    run_search(context.results.tables(study), context)
    rows = context.results.all_tables().trials.to_pylist()
    assert sorted((row["arm"], row["number"]) for row in rows) == [
        (arm, number) for arm in ("adamw", "broken", "far") for number in range(3) for _ in range(2)
    ]
    assert kept <= set((context.results.path / "trials").iterdir())


# Learning rates so far apart that the trial with the small one is behind after one epoch.
CLEAR = a_study(
    arms=(Arm(name="adamw", learning_rate=Choice(options=(1e-2, 1e-9))),),
    # A task that the larger rate learns within the first epoch.
    workload=SMALL_TASK.model_copy(update={"family": "motif", "vocabulary": 64, "difficulty": 0.0, "train_size": 512}),
    search=Search(trials_per_arm=2, epochs=2, grace_epochs=1, reduction_factor=2, workers=2, sampler="random"),
    seed=10,  # draws the large rate first
)


def wait_until_all_cpus_are_free(deadline_s: float) -> None:
    began = time.monotonic()
    while (free := ray.available_resources().get("CPU", 0.0)) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() - began < deadline_s, f"{free} of {ray.cluster_resources()['CPU']} CPUs are free"
        time.sleep(0.05)


def test_trials_that_tune_stops_early_give_their_workers_back(cluster, tmp_path):
    """Two workers a trial, stopped by asynchronous halving, one trial after the other on one cluster."""
    wait_until_all_cpus_are_free(deadline_s=60)
    context = make_context(tmp_path / "small", cluster)
    run_search(context.results.tables(CLEAR), context)
    first, second = sorted(rows_of(context.results), key=lambda row: row["number"])
    assert (first["ending"], first["epochs_run"], first["workers"]) == (Ending.COMPLETED, 2, 2)
    assert (second["ending"], second["epochs_run"], second["workers"]) == (Ending.STOPPED_EARLY, 1, 2)
    wait_until_all_cpus_are_free(deadline_s=10)


def test_workers_that_are_long_in_ending_give_back_what_they_held(cluster, tmp_path):
    """Tune kills the actor of the last trial 5 s after it has stopped it, whose group is still ending."""
    wait_until_all_cpus_are_free(deadline_s=60)

    def slow(trial, ending):
        time.sleep(12 if ending is Ending.STOPPED_EARLY else 0)

    context = make_context(tmp_path / "small", cluster, ended=slow)
    run_search(context.results.tables(CLEAR), context)
    assert [row["ending"] for row in rows_of(context.results)].count(Ending.STOPPED_EARLY) == 1
    wait_until_all_cpus_are_free(deadline_s=10)


def test_a_trial_under_way_when_tune_fails_has_no_row_and_is_trained_anew(cluster, tmp_path, monkeypatch):
    """Tune ends it by the call that also ends what a scheduler has stopped."""
    study = a_study(search=Search(trials_per_arm=1, epochs=60, grace_epochs=60, seeds=(1,)))
    answer = _ArmHalvings.on_trial_result

    def fail(self, controller, trial, result):
        if result["epoch"] == 2:
            raise ZeroDivisionError("planted")
        return answer(self, controller, trial, result)

    context = make_context(tmp_path / "small", cluster)
    monkeypatch.setattr(_ArmHalvings, "on_trial_result", fail)
    with pytest.raises(Exception, match="planted"):
        run_search(context.results.tables(study), context)
    monkeypatch.undo()
    assert not [row for row in rows_of(context.results) if row["ending"] != Ending.COMPLETED]
    run_search(context.results.tables(study), context)
    assert [(row["ending"], row["epochs_run"]) for row in rows_of(context.results)] == [(Ending.COMPLETED, 60)] * 2


@pytest.mark.parametrize("stop_after", [2, None])
def test_a_group_that_is_started_again_tells_its_epochs_once(cluster, tmp_path, monkeypatch, stop_after):
    from qsgd_ray.execution import trainable

    trial = search_trial(CLEAR, "adamw", 0, {"learning_rate": 1e-2})

    def die_once(trials, context):
        told = []
        # Started again after epoch 2, whatever the worker had heard by then.
        for epoch in (1, 2, 1, 2, 3):
            told.append(measured(epoch, 0.5))
            stopped = context.report(trial, told[-1])
        ending = Ending.STOPPED_EARLY if stopped else Ending.COMPLETED
        context.results.write(trial, Outcome(ending, tuple(told)))

    monkeypatch.setattr(trainable, "run_trials", die_once)
    told = []

    def decide(measurement):
        told.append(measurement.epoch)
        return measurement.epoch == stop_after

    outcome = run(_train_on_workers(trial, make_context(tmp_path / "small", cluster)), decide)
    assert told == ([1, 2] if stop_after else [1, 2, 3])
    assert outcome.ending is (Ending.STOPPED_EARLY if stop_after else Ending.COMPLETED)


def test_a_trial_whose_workers_stay_lost_is_no_result_for_the_sampler(cluster, tmp_path, monkeypatch):
    from qsgd_ray.execution import trainable

    trial = search_trial(CLEAR, "adamw", 0, {"learning_rate": 1e-2})
    monkeypatch.setattr(trainable, "run_trials", lambda _, context: context.results.write(trial, Outcome(Ending.LOST)))
    with pytest.raises(trainable._TrialLost, match=r"search-adamw-000-\w+: its workers were lost"):
        run(_train_on_workers(trial, make_context(tmp_path / "small", cluster)), quiet)


def test_what_ends_a_group_for_good_is_raised(cluster, tmp_path, monkeypatch):
    from qsgd_ray.execution import trainable

    def fail(trials, context):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(trainable, "run_trials", fail)
    trial = search_trial(CLEAR, "adamw", 0, {"learning_rate": 1e-2})
    with pytest.raises(ZeroDivisionError, match="planted"):
        run(_train_on_workers(trial, make_context(tmp_path / "small", cluster)), quiet)
