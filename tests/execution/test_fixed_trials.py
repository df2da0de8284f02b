"""Trials known beforehand: beside each other they leave the rows that they leave one after the other."""

import os
import signal

import pytest
from support.run_contexts import make_context, numbered_trial, quiet, rows_of, timeless
from support.small_study import SMALL_TASK, a_study

from qsgd_ray.config import Arm, Confirm, Map, Perturbation
from qsgd_ray.config.trial import map_trials
from qsgd_ray.execution import fixed_trials as listed
from qsgd_ray.execution import train_group as distributed
from qsgd_ray.execution.fixed_trials import run_fixed_trials
from qsgd_ray.execution.train_group import run_trials
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.study._stages import run_stages
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

SINE = Perturbation(source="sine", lambda_=5.0, n_qubits=2)
TRIALS = [numbered_trial(number, SINE if number % 2 else None, workers=1) for number in range(4)]
BROKEN = numbered_trial(9, workers=1, arm=Arm(name="adamw", learning_rate=1e30))


@pytest.fixture(scope="module")
def one_after_the_other(cluster, tmp_path_factory):
    context = make_context(tmp_path_factory.mktemp("listed") / "small", cluster)
    run_trials(TRIALS, context)
    return {trial_id: timeless(row) for trial_id, row in rows_of(context).items()}


def test_beside_each_other_they_leave_the_same_rows(one_after_the_other, cluster, tmp_path):
    context = make_context(tmp_path / "small", cluster)
    run_fixed_trials(a_study(), context, TRIALS[:1])
    run_fixed_trials(a_study(), context, TRIALS)
    assert {trial_id: timeless(row) for trial_id, row in rows_of(context).items()} == one_after_the_other


class KillsOnce:
    """Of the first trial that reports, the process dies; its file says that this has been."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __call__(self, trial, measurement) -> bool:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def test_one_at_a_time_a_trial_whose_process_is_killed_is_trained_all_the_same(one_after_the_other, cluster, tmp_path):
    context = make_context(tmp_path / "small", cluster, report=KillsOnce(tmp_path / "killed"))
    run_fixed_trials(a_study(), context, TRIALS, max_concurrent=1)
    assert (tmp_path / "killed").exists()
    assert {trial_id: timeless(row) for trial_id, row in rows_of(context).items()} == one_after_the_other


def test_one_that_diverges_keeps_its_row_and_the_others_go_on(cluster, tmp_path):
    context = make_context(tmp_path / "small", cluster)
    run_fixed_trials(a_study(), context, [BROKEN, TRIALS[0]])
    endings = {row["number"]: row["ending"] for row in rows_of(context).values()}
    assert endings == {9: Ending.DIVERGED, 0: Ending.COMPLETED}


@pytest.mark.parametrize("trials", [[], TRIALS[:1]])
def test_nothing_to_do_starts_nothing(monkeypatch, tmp_path, trials):
    """No cluster is there, and nothing that would ask for one."""
    context = make_context(tmp_path / "small", None)
    for trial in trials:
        context.results.write(trial, Outcome(Ending.COMPLETED))

    def refuse(*_, **__):
        raise AssertionError("started")

    monkeypatch.setattr(listed, "run_in_tune", refuse)
    monkeypatch.setattr(distributed, "_fit", refuse)
    run_fixed_trials(a_study(), context, trials)


def test_a_study_with_a_map_trains_every_setting_and_goes_on_without_doing_any_twice(cluster, tmp_path, one_thread):
    study = a_study(
        workload=SMALL_TASK,
        confirm=Confirm(seeds=(11, 12), epochs=2, workers=1),
        map=Map(arm="sine", axes={"perturbation.n_qubits": (2, 4), "workload.length": (8,)}, seeds=(31, 32), epochs=1),
    )
    results = Results(tmp_path)
    results.open(study, {})
    run_stages(study, results, cluster)
    tables = results.all_tables()
    mapped = [row for row in tables.trials.to_pylist() if row["stage"] == "map"]
    assert len(mapped) == 6 == len({row["trial_id"] for row in mapped})
    assert {row["setting"] for row in mapped if row["arm"] == "adamw"} == {'{"workload.length": 8}'}
    told = next(row for row in mapped if row["arm"] == "adamw")
    shorter = next(trial for trial in map_trials(study, results.choices(study)) if trial.trial_id == told["trial_id"])
    alone = run(train(shorter, make_workload(shorter.workload), None), quiet)
    assert told["validation_loss"] == alone.measurements[-1].validation_loss
    assert {(row["arm"], row["n_qubits"]) for row in mapped} == {("adamw", None), ("sine", 2), ("sine", 4)}
    assert all(row["test_accuracy"] is None and row["validation_accuracy"] is not None for row in mapped)
    before = {row["trial_id"]: row for row in tables.trials.to_pylist()}
    gone = mapped[0]["trial_id"]
    (tmp_path / "trials" / f"{gone}.parquet").unlink()
    run_stages(study, results, cluster)
    after = {row["trial_id"]: row for row in results.all_tables().trials.to_pylist()}
    assert timeless(after[gone]) == timeless(before[gone])
    assert {k: v for k, v in after.items() if k != gone} == {k: v for k, v in before.items() if k != gone}
