"""Once the gate is closed no trial starts, what runs ends as if undisturbed, and what was held back has no row."""

import pytest
from support.run_contexts import make_context, numbered_trial, rows_of, timeless
from support.small_study import a_study

from qsgd_ray.config import Confirm, Resources, WorkerResources
from qsgd_ray.config.trial import search_trials
from qsgd_ray.execution import train_group, trainable
from qsgd_ray.execution.fixed_trials import _FixedTrial, run_fixed_trials
from qsgd_ray.execution.nodes import _count
from qsgd_ray.execution.preflight import _check_worker_memory, _logical_cpus
from qsgd_ray.execution.start_gate import StartGate
from qsgd_ray.execution.train_group import run_trials
from qsgd_ray.execution.trainable import TunedTrial
from qsgd_ray.execution.tune_run import _request_of_arm
from qsgd_ray.execution.worker_requests import _every_resources, resources_by_arm
from qsgd_ray.outcome import Ending, Outcome

CONFIG = {"arm": "adamw", "number": 0, "point": {"learning_rate": 0.01}}
TRIALS = [numbered_trial(number, workers=1, epochs=1) for number in range(3)]


class Gate:
    """A gate in this process."""

    def __init__(self, is_open: bool) -> None:
        self._is_open = is_open

    def is_open(self) -> bool:
        return self._is_open


class ClosesAt:
    """Closes the gate as soon as a trial of this number reports."""

    def __init__(self, gate: StartGate, number: int) -> None:
        self.gate, self.number = gate, number

    def __call__(self, trial, measurement) -> bool:
        if trial.number == self.number:
            self.gate.close()
            assert not self.gate.is_open()
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_what_runs_when_it_closes_ends_as_it_would_and_the_others_follow_later(cluster, tmp_path, workers):
    trials = [trial.model_copy(update={"workers": workers}) for trial in TRIALS]
    gate = StartGate()
    context = make_context(tmp_path / "small", cluster, report=ClosesAt(gate, 0), gate=gate)
    run_fixed_trials(a_study(), context, trials, max_concurrent=1)
    (row,) = rows_of(context).values()
    assert (row["number"], row["ending"]) == (0, Ending.COMPLETED)
    run_fixed_trials(a_study(), context, trials, max_concurrent=1)
    assert len(rows_of(context)) == 1, "it stays closed"
    later = make_context(tmp_path / "small", cluster)
    run_fixed_trials(a_study(), later, trials, max_concurrent=1)
    assert {row["number"] for row in rows_of(later).values()} == {0, 1, 2}
    if workers == 1:
        whole = make_context(tmp_path / "whole", cluster)
        run_fixed_trials(a_study(), whole, trials, max_concurrent=1)
        assert {k: timeless(v) for k, v in rows_of(later).items()} == {
            k: timeless(v) for k, v in rows_of(whole).items()
        }


def tuned(context) -> TunedTrial:
    trial = TunedTrial.__new__(TunedTrial)
    trial.setup(CONFIG, a_study(), context)
    return trial


def test_a_search_trial_behind_a_closed_gate_leaves_no_row_and_teaches_the_sampler_nothing(tmp_path):
    context = make_context(tmp_path / "small", None, gate=Gate(is_open=False))
    with pytest.raises(trainable._TrialLost, match="the budget is spent"):
        tuned(context).step()
    assert rows_of(context) == {}


def test_rows_that_are_there_are_gone_through_behind_a_closed_gate_too(tmp_path, one_thread):
    done = make_context(tmp_path / "small", None, gate=Gate(is_open=True))
    trial = tuned(done)
    told = [trial.step(), trial.step()]
    assert told[-1]["done"]
    again = tuned(make_context(tmp_path / "small", None, gate=Gate(is_open=False)))
    assert [again.step(), again.step()] == told


def test_a_fixed_trial_behind_a_closed_gate_is_done_without_a_row(tmp_path):
    context = make_context(tmp_path / "small", None, gate=Gate(is_open=False))
    trial = _FixedTrial.__new__(_FixedTrial)
    trial.setup({"trial_id": TRIALS[0].trial_id}, a_study(), context, {TRIALS[0].trial_id: TRIALS[0]})
    assert trial.step()["done"]
    assert rows_of(context) == {}


def test_a_group_takes_trials_of_equal_resources_in_their_order(tmp_path, monkeypatch):
    groups = []

    def fit(trials, context):
        groups.append(([trial.number for trial in trials], context.resources.cpus_per_worker))
        for trial in trials:
            context.results.write(trial, Outcome(Ending.COMPLETED))

    monkeypatch.setattr(train_group, "_fit", fit)
    names = ("a", "b", "b", "a")
    trials = [
        numbered_trial(number, arm=TRIALS[0].arm.model_copy(update={"name": name})) for number, name in enumerate(names)
    ]
    context = make_context(tmp_path / "small", None, by_arm={"b": Resources(cpus_per_worker=2)})
    run_trials(trials, context)
    assert groups == [([0], 1), ([1, 2], 2), ([3], 1)]


def a_study_of_kinds():
    """A study of whose arms one wants a node of its own kind, and whose trials out of memory want large ones."""
    study = a_study(
        confirm=Confirm(seeds=(11, 12), epochs=1, workers=2),
        resources=Resources(circuit_nodes="sim", on_out_of_memory=("alone", {"worker_nodes": "large"})),
    )
    special = WorkerResources(worker_nodes="train", cpus_per_worker=4, memory_gb_per_worker=3.0)
    return study.model_copy(update={"arms": (study.arms[0], study.arms[1].model_copy(update={"resources": special}))})


def test_an_arms_resources_are_what_its_trials_ask_for(tmp_path):
    study = a_study_of_kinds()
    by_arm = resources_by_arm(study)
    assert by_arm.keys() == {"sine"}
    context = make_context(tmp_path / "small", None, resources=study.resources, by_arm=by_arm)
    asked = {
        arm: _request_of_arm({"arm": arm}, context, lambda config: config["arm"]).bundles[0]
        for arm in ("adamw", "sine")
    }
    assert asked == {"adamw": {"CPU": 1}, "sine": {"CPU": 4, "memory": 3_000_000_000, "train": 0.001}}
    assert [one.worker_nodes for one in _every_resources(study)] == [None, "train", "large", "large"]
    assert _logical_cpus(study, cores=2) == 8


def test_more_memory_than_the_machine_has_is_refused_by_the_field_that_asks():
    from qsgd_ray.config import StudyError

    study = a_study_of_kinds()
    _check_worker_memory(study, 6_000_000_000)
    with pytest.raises(StudyError, match=r"^arms.sine.resources.memory_gb_per_worker: got 3 for each of 2; allowed: 5"):
        _check_worker_memory(study, 5_000_000_000)


def test_the_search_trials_of_an_arm_with_resources_are_those_without():
    study = a_study_of_kinds()
    assert search_trials(study, "sine", 0, CONFIG["point"])[0].arm.resources is None


def test_nodes_are_paid_for_where_a_process_of_the_study_may_be():
    def node(alive=True, **resources):
        return {"Alive": alive, "Resources": {"CPU": 8.0, "memory": 1e9, "object_store_memory": 1e9} | resources}

    kinds = a_study_of_kinds()
    kinds = kinds.model_copy(update={"arms": (kinds.arms[1],)})
    nodes = [
        node(train=1.0),
        node(train=1.0),
        node(train=1.0, alive=False),
        node(sim=1.0, train=1.0),
        node(large=1.0),
        node(other=1.0),
        {"Alive": True, "Resources": {"node:10.0.0.1": 1.0}},
    ]
    assert _count(kinds, nodes) == {"train": 2, "sim+train": 1, "large": 1}
    everywhere = a_study(resources=Resources(circuit_actors=None))
    assert _count(everywhere, nodes) == {"train": 2, "sim+train": 1, "large": 1, "other": 1}
