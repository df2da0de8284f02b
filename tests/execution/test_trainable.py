"""A trial under Tune trains its seeds side by side, each as if alone; any of its rows lets it be gone through again."""

import pytest
from support.run_contexts import make_context, timeless
from support.small_study import SMALL_TASK, a_study

from qsgd_ray.circuits.errors import CircuitsLost
from qsgd_ray.config import Arm, LogUniform, Perturbation, Search, StudyError
from qsgd_ray.config.trial import search_trials
from qsgd_ray.execution import trainable
from qsgd_ray.execution.trainable import EPOCH, SCORE, TunedTrial
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = LogUniform(low=1e-4, high=1e-1)
# Dropout draws from the process's generator.
TASK = SMALL_TASK.model_copy(update={"model": SMALL_TASK.model.model_copy(update={"dropout": 0.5})})
STUDY = a_study(
    workload=TASK,
    arms=(
        Arm(name="adamw", learning_rate=RATE),
        Arm(name="far", learning_rate=RATE, perturbation=Perturbation(source="sine", lambda_=1e38, scope="all")),
    ),
    search=Search(trials_per_arm=2, epochs=3, grace_epochs=1, seeds=(0, 1, 2)),
)
CONFIG = {"arm": "adamw", "number": 0, "point": {"learning_rate": 0.01}}
TRIALS = search_trials(STUDY, **CONFIG)


def tuned(context, config: dict = CONFIG) -> TunedTrial:
    trial = TunedTrial.__new__(TunedTrial)
    trial.setup(config, STUDY, context)
    return trial


def gone_through(context, config: dict = CONFIG) -> list[dict]:
    trial = tuned(context, config)
    told = [trial.step()]
    while not told[-1]["done"]:
        told.append(trial.step())
    return told


def rows_by_id(context) -> dict[str, dict]:
    return {row["trial_id"]: timeless(row) for row in context.results.all_tables().trials.to_pylist()}


@pytest.fixture
def context(tmp_path):
    return make_context(tmp_path / "small", None)


def test_seeds_that_train_side_by_side_end_as_each_does_alone(context):
    told = gone_through(context)
    assert [one[EPOCH] for one in told] == [1, 2, 3]
    rows = rows_by_id(context)
    workload = make_workload(TASK)
    for trial in TRIALS:
        alone = run(train(trial, workload, None), lambda _: False)
        assert rows[trial.trial_id]["parameters_sha256"] == alone.parameters_sha256
    assert sorted(row["seed"] for row in rows.values()) == [0, 1, 2]
    assert {row["number"] for row in rows.values()} == {0}


def test_a_trial_is_scored_by_the_interquartile_mean_at_every_epoch(context):
    told = gone_through(context)
    for epoch, one in enumerate(told):
        accuracies = [context.results.trajectory(t.trial_id)[epoch]["validation_accuracy"] for t in TRIALS]
        assert one[SCORE] == pytest.approx(sum(accuracies) / 3)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_trial_of_which_some_seeds_have_their_row_tells_the_same_again(context, tmp_path, kept):
    told = gone_through(context)
    again = make_context(tmp_path / "again", None)
    for trial in TRIALS[:kept]:
        for table in ("trials", "measurements"):
            name = f"{table}/{trial.trial_id}.parquet"
            (again.results.path / name).write_bytes((context.results.path / name).read_bytes())
    assert gone_through(again) == told
    assert rows_by_id(again) == rows_by_id(context)


def test_a_stop_ends_every_seed_at_the_same_epoch(context, tmp_path):
    trial = tuned(context)
    first = trial.step()
    trial.expect_stop()
    trial.cleanup()
    assert [(row["ending"], row["epochs_run"]) for row in rows_by_id(context).values()] == [("stopped_early", 1)] * 3

    # Killed between the first row and the others.
    again = make_context(tmp_path / "again", None)
    for table in ("trials", "measurements"):
        name = f"{table}/{TRIALS[0].trial_id}.parquet"
        (again.results.path / name).write_bytes((context.results.path / name).read_bytes())
    assert gone_through(again) == [first | {"done": True, "ending": "stopped_early"}]
    assert rows_by_id(again) == rows_by_id(context)


def test_a_trial_that_tune_ends_as_it_fails_itself_leaves_no_row(context):
    trial = tuned(context)
    trial.step()
    trial.cleanup()
    assert rows_by_id(context) == {}


def test_a_seed_that_fails_counts_nought_while_the_others_go_on(context, monkeypatch):
    def flaky(trial, *rest):
        if trial.seed != 1:
            return (yield from train(trial, *rest))
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(trainable, "train", flaky)
    told = gone_through(context)
    rows = rows_by_id(context)
    assert [rows[t.trial_id]["ending"] for t in TRIALS] == [Ending.COMPLETED, Ending.FAILED, Ending.COMPLETED]
    assert "ZeroDivisionError: planted" in rows[TRIALS[1].trial_id]["error"]
    alive = sum(rows[TRIALS[place].trial_id]["validation_accuracy"] for place in (0, 2))
    assert told[-1][SCORE] == pytest.approx(alive / 3)
    assert len(told) == 3


def test_a_trial_without_a_seed_that_lived_is_done_and_scores_nought(context):
    told = gone_through(context, CONFIG | {"arm": "far"})
    assert (told[-1][SCORE], told[-1]["done"]) == (0.0, True)
    assert {row["ending"] for row in rows_by_id(context).values()} == {Ending.DIVERGED}


def test_a_seed_whose_circuits_are_lost_leaves_the_trial_without_rows(context, monkeypatch):
    def losing(trial, *rest):
        training = train(trial, *rest)
        yield next(training)
        if trial.seed == 1:
            raise CircuitsLost("planted")
        return (yield from training)

    monkeypatch.setattr(trainable, "train", losing)
    trial = tuned(context)
    trial.step()
    with pytest.raises(CircuitsLost):
        trial.step()
    trial.expect_stop()
    trial.cleanup()
    assert rows_by_id(context) == {}


def test_a_trial_that_lacks_a_package_says_so_in_its_rows_and_teaches_the_sampler_nothing(context, monkeypatch):
    def lacking(trial, *rest):
        yield next(train(trial, *rest))
        raise ModuleNotFoundError("No module named 'qiskit_aer'")

    monkeypatch.setattr(trainable, "train", lacking)
    trial = tuned(context)
    trial.step()
    with pytest.raises(trainable._TrialLost, match="unavailable"):
        trial.step()
    rows = rows_by_id(context)
    assert {row["ending"] for row in rows.values()} == {Ending.UNAVAILABLE}
    assert not any(context.results.has(one.trial_id) for one in TRIALS), "the same command runs them again"
    monkeypatch.undo()
    gone_through(context)
    assert {row["ending"] for row in rows_by_id(context).values()} == {Ending.COMPLETED}
    assert len(rows_by_id(context)) == 3


def test_data_that_a_node_lacks_is_the_outcome_of_the_trial_and_no_error_of_tune(context, monkeypatch):
    def missing(*_, **__):
        raise StudyError("workload.data.path: got '/data'; allowed: a folder with a copy of GSM8K")

    monkeypatch.setattr(trainable, "make_workload", missing)
    trial = tuned(context)
    with pytest.raises(trainable._TrialLost):
        trial.step()
    assert {row["ending"] for row in rows_by_id(context).values()} == {Ending.UNAVAILABLE}
