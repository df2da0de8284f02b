"""Pruning by replicates: the exact test, decisions that mirror, what each scheduler adds, and a search that goes on."""

import math
import warnings
from itertools import product
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from ray.tune.schedulers import TrialScheduler
from support.own_metrics import by_penalty, by_score
from support.run_contexts import make_context, timeless
from support.small_study import SMALL_TASK, a_study

from qsgd_ray.config import Arm, Choice, InvalidSettings, Metric, Resources, Search
from qsgd_ray.config.trial import search_key
from qsgd_ray.execution.trainable import ENDING, EPOCH, SCORE, VALUES
from qsgd_ray.outcome import Ending
from qsgd_ray.search._halving import _ArmHalvings
from qsgd_ray.search._replicate_pruning import are_worse, signed_rank_p
from qsgd_ray.search.observations import unfinished_points
from qsgd_ray.search.tune import run_search

LOSS = Metric("loss", direction="min")
SCHEDULERS = ("asha", "hyperband", "bohb", "none")


def every_choice_of_signs(differences: list[float]) -> float:
    """The p value by counting: ranks by sorting, all signs of what is not zero."""
    sizes = sorted(map(abs, differences))
    ranks = [np.mean([place for place, size in enumerate(sizes, 1) if size == abs(one)]) for one in differences]
    signed = [rank for rank, one in zip(ranks, differences, strict=True) if one != 0]
    observed = sum(rank for rank, one in zip(ranks, differences, strict=True) if one > 0)
    sums = [
        sum(rank for rank, sign in zip(signed, signs, strict=True) if sign)
        for signs in product((0, 1), repeat=len(signed))
    ]
    return sum(one <= observed for one in sums) / len(sums)


@given(st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=8))
def test_the_p_value_is_the_share_of_all_choices_of_signs(differences):
    assert signed_rank_p(np.array(differences)) == pytest.approx(every_choice_of_signs(differences), abs=1e-12)


def optunas(values: list[float], best: list[float], metric: Metric, threshold: float) -> bool:
    """The decision of Optuna's pruner."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize" if metric.direction == "max" else "minimize")
        study.add_trial(create_trial(value=float(np.mean(best)), intermediate_values=dict(enumerate(best))))
        trial = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(values)))
        return optuna.pruners.WilcoxonPruner(p_threshold=threshold).prune(study, trial)


@pytest.mark.parametrize("metric", [LOSS, Metric("score")])
@settings(max_examples=40)
@given(data=st.data(), n=st.integers(2, 9), threshold=st.sampled_from([0.03, 0.07, 0.2, 0.4]))
def test_it_decides_as_optunas_pruner_where_no_differences_are_equal(metric, data, n, threshold):
    sizes = data.draw(st.permutations(range(1, n + 1)))
    signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=n, max_size=n))
    best = [10.0 * index for index in range(n)]
    values = [one + sign * size for one, sign, size in zip(best, signs, sizes, strict=True)]
    p = every_choice_of_signs([metric.sign * (a - b) for a, b in zip(values, best, strict=True)])
    agrees = optunas(values, best, metric, threshold)
    if are_worse(values, best, metric, threshold) != agrees:
        # Optuna looks at the mean, a search at the interquartile mean, before it stops what the test calls worse.
        assert p < threshold
    else:
        assert not agrees or p < threshold


MAYBE = st.one_of(st.none(), st.just(math.inf), st.just(-math.inf), st.floats(-9, 9).map(lambda x: round(x, 2)))


@given(st.lists(st.tuples(MAYBE, MAYBE), min_size=2, max_size=8), st.sampled_from([0.04, 0.1, 0.3]))
def test_decisions_on_a_negated_metric_are_mirrored(pairs, threshold):
    values, best = zip(*pairs, strict=True)
    score = Metric("score")
    negated = [[None if one is None else -one for one in side] for side in (values, best)]
    assert are_worse(*negated, score.model_copy(update={"direction": "min"}), threshold) == are_worse(
        values, best, score, threshold
    )


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_run_without_a_value_is_worse_than_any_and_two_such_are_equal(missing):
    best = [1.0, 2.0, 3.0, 4.0]
    assert are_worse([missing] * 4, best, LOSS, 0.07)
    assert not are_worse(best, [missing] * 4, LOSS, 0.49)
    assert not are_worse([missing] * 4, [missing] * 4, LOSS, 0.49)
    assert not are_worse([missing, 0.0, 0.0, 0.0], best, LOSS, 0.07)


def test_a_point_that_is_equal_everywhere_goes_on():
    assert not are_worse([0.3, 0.1 + 0.2, 0.5], [0.1 + 0.2, 0.3, 0.5], LOSS, 0.49)


def pruned(threshold: float | None = 0.2, n_seeds: int = 3, **fields) -> Search:
    fields = {"trials_per_arm": 12, "epochs": 9, "grace_epochs": 2, "scheduler": "none"} | fields
    return Search(seeds=tuple(range(1, n_seeds + 1)), replicate_pruning=threshold, **fields)


def ran(study, curves: dict[int, list[list[float | None]]], arm: str = "adamw") -> dict[int, int]:
    """Epochs that points run one after the other, each until it is stopped; curves have a value a seed and epoch."""
    halvings, reached = _ArmHalvings(study), {}
    last = study.search.epochs
    for number, curve in curves.items():
        trial = SimpleNamespace(temporary_state=Mock(), trial_id=str(number), config={"arm": arm, "number": number})
        halvings.on_trial_add(None, trial)
        for epoch, values in enumerate(curve, 1):
            known = [study.metric.worst if one is None else one for one in values]
            result = {EPOCH: epoch, SCORE: float(np.mean(known)), VALUES: values}
            reached[number] = epoch
            if epoch == last:  # Tune asks no scheduler about a trial that is done
                result |= {ENDING: Ending.COMPLETED if any(one is not None for one in values) else None}
            elif halvings.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                break
        halvings.on_trial_complete(None, trial, result)
    return reached


GOOD, BAD = [[0.8, 0.7, 0.9]] * 9, [[0.5, 0.4, 0.6]] * 9


def test_a_worse_point_is_stopped_after_the_grace_epochs_and_never_becomes_the_best():
    study = a_study(search=pruned())
    # The third is better than the second, and worse than the first.
    assert ran(study, {0: GOOD, 1: BAD, 2: [[0.6, 0.5, 0.7]] * 9}) == {0: 9, 1: 2, 2: 2}
    assert ran(a_study(search=pruned(None)), {0: GOOD, 1: BAD}) == {0: 9, 1: 9}


def test_a_point_is_compared_seed_by_seed_after_the_same_epoch():
    study = a_study(search=pruned())
    late = [[0.1 * epoch + 0.1 * seed for seed in range(3)] for epoch in range(9)]
    ahead = [[value + 0.01 for value in epoch] for epoch in late]
    behind = [*ahead[:5], *([value - 0.01 for value in epoch] for epoch in late[5:])]
    # Below the best one's end all the time, and yet never behind it until epoch 6.
    assert ran(study, {0: late, 1: ahead, 2: behind}) == {0: 9, 1: 9, 2: 6}


def test_points_that_failed_or_were_stopped_set_no_standard():
    study = a_study(search=pruned())
    nothing = [[None, None, None]] * 9
    assert ran(study, {0: nothing, 1: BAD, 2: nothing, 3: GOOD}) == {0: 9, 1: 9, 2: 2, 3: 9}


def test_arms_set_no_standard_for_each_other():
    halvings = _ArmHalvings(a_study(search=pruned()))
    for arm, curve in (("adamw", GOOD), ("sine", BAD)):
        trial = SimpleNamespace(temporary_state=Mock(), trial_id=arm, config={"arm": arm, "number": 0})
        halvings.on_trial_add(None, trial)
        results = [{EPOCH: epoch, SCORE: 0.5, VALUES: values} for epoch, values in enumerate(curve, 1)]
        answers = [halvings.on_trial_result(None, trial, result) for result in results[:-1]]
        assert set(answers) == {TrialScheduler.CONTINUE}
        halvings.on_trial_complete(None, trial, results[-1] | {ENDING: Ending.COMPLETED})


MARKS = st.one_of(st.none(), st.integers(0, 9).map(float))
CURVES = st.lists(st.lists(st.lists(MARKS, min_size=4, max_size=4), min_size=9, max_size=9), min_size=2, max_size=6)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@settings(max_examples=15)
@given(CURVES)
def test_every_scheduler_stops_mirrored_points_alike_and_none_later_than_without(scheduler, curves):
    search = pruned(0.1, 4, scheduler=scheduler)
    score, penalty = by_score(a_study(search=search)), by_penalty(a_study(search=search))
    negated = [[[None if one is None else -one for one in epoch] for epoch in curve] for curve in curves]
    stopped = ran(score, dict(enumerate(curves)))
    assert ran(penalty, dict(enumerate(negated))) == stopped
    if scheduler == "none":
        assert all(epochs >= search.grace_epochs for epochs in stopped.values())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"n_seeds": 1}, "replicate_pruning: None with one seed, which has no replicates; got 0.2"),
        ({"threshold": 0.1}, "replicate_pruning: above 0.125, the least p value that 3 seeds can have; got 0.1"),
        ({"threshold": 0.5}, "replicate_pruning: got 0.5; allowed: less than 0.5"),
        ({"objectives": ("quality", "circuits")}, "replicate_pruning: None with several objectives"),
    ],
)
def test_a_pruning_that_could_stop_nothing_is_refused(fields, said):
    with pytest.raises(InvalidSettings, match=said) as refused:
        pruned(**fields)
    assert "\n" not in str(refused.value)


def test_trials_are_renamed_by_pruning_and_stay_without_it():
    off, on = a_study(search=pruned(None)), a_study(search=pruned())
    assert "replicate_pruning" not in off.search.model_dump()
    assert search_key(off, "adamw", None) != search_key(on, "adamw", None)
    assert type(on).model_validate_json(on.model_dump_json()) == on


# Rates so far apart that each seed of the small one is behind after one epoch.
CLEAR = a_study(
    arms=(Arm(name="adamw", learning_rate=Choice(options=(1e-2, 1e-9))),),
    workload=SMALL_TASK.model_copy(update={"family": "motif", "vocabulary": 64, "difficulty": 0.0, "train_size": 512}),
    search=pruned(
        0.2,
        trials_per_arm=3,
        epochs=3,
        grace_epochs=1,
        known_points={"adamw": ({"learning_rate": 1e-2}, {"learning_rate": 1e-9})},
    ),
)


def rows_of(context) -> list[dict]:
    return sorted(map(timeless, context.results.all_tables().trials.to_pylist()), key=lambda row: row["trial_id"])


def test_a_pruned_point_has_a_row_for_each_seed_and_stays_pruned(cluster, tmp_path):
    """Also where the search was cut off before it, and between the rows of its seeds."""
    context = make_context(tmp_path / "whole", cluster, resources=Resources(cpus_per_worker=2.6))
    run_search(context.results.tables(CLEAR), context)
    rows = rows_of(context)
    ended = {(row["number"], row["seed"]): (row["ending"], row["epochs_run"]) for row in rows if row["number"] < 2}
    assert ended == {
        **{(0, seed): (Ending.COMPLETED, 3) for seed in (1, 2, 3)},
        **{(1, seed): (Ending.STOPPED_EARLY, 1) for seed in (1, 2, 3)},
    }
    assert (len(rows), unfinished_points(context.results.tables(CLEAR))) == (9, {})

    again = make_context(tmp_path / "cut_off", cluster, resources=Resources(cpus_per_worker=2.6))
    for row in rows:
        if row["number"] == 0 or (row["number"], row["seed"]) == (1, 2):
            for table in ("trials", "measurements"):
                name = f"{row['trial_id']}.parquet"
                (again.results.path / table / name).write_bytes((context.results.path / table / name).read_bytes())
    run_search(again.results.tables(CLEAR), again)
    assert rows_of(again) == rows
