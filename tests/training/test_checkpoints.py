"""A training that was cut off ends with the bits of one that was not: any step, any workload, whole or in shards."""

import json
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoint_runs import Cut, Run, cut_at, go, work
from support.replicas import spawn
from support.small_study import SMALL_TASK
from support.small_tasks import a_language_task
from support.stores import BUCKET, credentials, s3_server
from support.trainings import small_trial, without_times

from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.config import Perturbation, QuantumAttention
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.storage import StorageError, storage_at
from qsgd_ray.training import checkpoints as module
from qsgd_ray.training.checkpoints import Checkpoints
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import _SINGLE_PROCESS
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")

DROPOUT = SMALL_TASK.model_copy(
    update={"batch_size": 16, "model": SMALL_TASK.model.model_copy(update={"dropout": 0.5})}
)
TWO_LAYERS = SMALL_TASK.model.model_copy(
    update={"dropout": 0.0, "n_layers": 2, "attention": QuantumAttention(n_qubits=2, depth=1)}
)
RECIPE = {
    "batch_size": 2,
    "steps_per_epoch": 4,
    "warmup_steps": 3,
    "decay": "linear",
    "clip_norm": 0.5,
    "n_answers": 3,
    "max_new_tokens": 2,
}
CIRCUIT = Perturbation(source="circuit", lambda_=5.0, n_qubits=3, schedule="cosine")
SAMPLED = Perturbation(source="sampled", shots=20, lambda_=5.0, n_qubits=2)
RANDOM = Perturbation(source="random_sign", lambda_=5.0, scope="all")


def comparable(outcome: Outcome) -> Outcome:
    measurements = tuple(map(without_times, outcome.measurements))
    return replace(outcome, measurements=measurements, test_s=None)


def trial_of(task=DROPOUT, perturbation=CIRCUIT, **fields):
    return small_trial(perturbation, workload=task, epochs=3, **fields)


@pytest.fixture(scope="module")
def undisturbed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _undisturbed()
    finally:
        torch.set_num_threads(threads)


def _undisturbed():
    return {
        source: go(Run("", trial_of(perturbation=source)), None, _SINGLE_PROCESS) for source in (None, CIRCUIT, SAMPLED)
    }


@settings(max_examples=15, deadline=None)
@given(
    perturbation=st.sampled_from([None, CIRCUIT, SAMPLED]),
    every=st.integers(1, 5),
    cuts=st.lists(st.integers(1, 9), max_size=3),
)
def test_cut_off_anywhere_it_ends_with_the_same_bits(perturbation, every, cuts, undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    one = Run("", trial_of(perturbation=perturbation), tuple(cuts), every=every)
    assert comparable(go(one, storage_at(folder), _SINGLE_PROCESS)) == comparable(undisturbed[perturbation])


@pytest.mark.parametrize("perturbation", [None, CIRCUIT, RANDOM])
@pytest.mark.parametrize(
    "fields",
    [
        RECIPE,
        {**RECIPE, "micro_batch_size": 1, "lora": {"r": 2, "dropout": 0.2}, "attention": {"n_qubits": 2, "depth": 1}},
        {**RECIPE, "autocast": "float16", "steps_per_epoch": 3, "n_answers": 0},  # slow on CPUs
        {**RECIPE, "autocast": "bfloat16", "gradient_checkpointing": True},
    ],
    ids=["recipe", "adapters", "float16", "bfloat16"],
)
def test_a_language_model_goes_on(tmp_path, fields, perturbation):
    pytest.importorskip("peft")
    trial = trial_of(a_language_task(tmp_path, **fields), perturbation)
    whole, cut = (
        go(Run("", trial, cuts), storage_at(tmp_path / str(len(cuts))), _SINGLE_PROCESS) for cuts in ((), (6, 3, 5))
    )
    assert whole.ending is Ending.COMPLETED
    assert comparable(cut) == comparable(whole)


def both(*what):
    """Each by replicas and by shards."""
    return [
        Run(f"{sharding}-{n}", trial, (5, 4), sharding) for sharding in ("ddp", "fsdp") for n, trial in enumerate(what)
    ]


@pytest.mark.slow
def test_several_processes_go_on_and_end_as_one_would(tmp_path):
    """Whole models and shards; the losses of one process within what float32's sums differ by."""
    pytest.importorskip("peft")
    plain = {"batch_size": 2, "steps_per_epoch": 4, "clip_norm": 0.5, "n_answers": 3, "max_new_tokens": 2}
    # A larger eps, as Adam's step makes the rounding of the smallest gradients as large as any.
    arm = trial_of().arm.model_copy(update={"eps": 1e-3, "learning_rate": 1e-3, "perturbation": CIRCUIT})
    tasks = [
        a_language_task(tmp_path, **plain),
        a_language_task(tmp_path, **plain, lora={"r": 2}, attention={"n_qubits": 2, "depth": 1}),
        a_language_task(tmp_path, **plain | {"autocast": "float16", "steps_per_epoch": 3, "n_answers": 0}),
        SMALL_TASK.model_copy(update={"model": SMALL_TASK.model.model_copy(update={"dropout": 0.0})}),
        SMALL_TASK.model_copy(update={"model": TWO_LAYERS}),
    ]
    trials = [trial_of(task).model_copy(update={"arm": arm}) for task in tasks]
    # torch's own AdamW takes the scaler's finding into its kernel.
    trials.append(trials[2].model_copy(update={"arm": arm.model_copy(update={"perturbation": None})}))
    runs = both(*trials)
    # What two begin, one ends; and what one begins, two end.
    down = [Run(f"down-{sharding}", trials[0], (5,), sharding, ends=False) for sharding in ("ddp", "fsdp")]
    up = [Run(f"up-{sharding}", trials[0], (), sharding) for sharding in ("ddp", "fsdp")]
    for one in up:
        go(replace(one, cuts=(5,), ends=False), storage_at(tmp_path / one.name), _SINGLE_PROCESS)
    runs += [*down, *up]
    spawn(work, (2, str(tmp_path), runs), 2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)]
    whole = go(Run("", trials[0]), None, _SINGLE_PROCESS)
    moved = [go(replace(one, cuts=(), ends=True), storage_at(tmp_path / one.name), _SINGLE_PROCESS) for one in down]
    moved += [ranks[0][one.name][1] for one in up]
    for outcome in moved:
        for theirs, ours in zip(outcome.measurements, whole.measurements, strict=True):
            assert theirs.train_loss == pytest.approx(ours.train_loss, rel=1e-5)
            assert theirs.validation_loss == pytest.approx(ours.validation_loss, rel=1e-5)
            assert (theirs.n_tokens, theirs.n_circuits) == (ours.n_tokens, ours.n_circuits)
    for n, trial in enumerate(trials):
        alone = go(Run("", trial), None, _SINGLE_PROCESS)
        for sharding in ("ddp", "fsdp"):
            whole, cut = ranks[0][f"{sharding}-{n}"]
            assert comparable(cut) == comparable(whole), (sharding, n)
            assert comparable(ranks[1][f"{sharding}-{n}"][1]) == comparable(whole), (sharding, n)
            # What several wrote, one can read.
            moved = go(Run("", trial), storage_at(tmp_path / f"{sharding}-{n}"), _SINGLE_PROCESS)
            assert moved.parameters_sha256 == whole.parameters_sha256, (sharding, n)
            for theirs, ours in zip(whole.measurements, alone.measurements, strict=True):
                close = 2e-3 if getattr(trial.workload, "autocast", None) else 1e-5
                assert theirs.train_loss == pytest.approx(ours.train_loss, rel=close), (sharding, n)
                assert theirs.validation_loss == pytest.approx(ours.validation_loss, rel=close), (sharding, n)
                assert (theirs.n_tokens, theirs.model_flops) == (ours.n_tokens, ours.model_flops)
            assert whole.answers is None if alone.answers is None else whole.answers.n == 3


def test_an_s3_store_keeps_it_and_nothing_is_left_behind(tmp_path, monkeypatch):
    trial = trial_of(a_language_task(tmp_path, **RECIPE))
    with s3_server() as endpoint:
        for name, value in credentials(endpoint).items():
            monkeypatch.setenv(name, value)
        store = storage_at(f"s3://{BUCKET}/a%20study")
        assert comparable(go(Run("", trial, (6, 5)), store, _SINGLE_PROCESS)) == comparable(
            go(Run("", trial), None, _SINGLE_PROCESS)
        )
        names = store.names(f"checkpoints/{trial.trial_id}", ".json")
        assert names == ["00000009.json", "00000012.json"]
        Checkpoints(store, trial.trial_id, every=3).remove()
        assert store.names(f"checkpoints/{trial.trial_id}", "") == []


def started(tmp_path, steps, every=2, keep=2):
    """A training cut off in the gradient of step `steps` + 1, and its checkpoints."""
    trial = trial_of()
    checkpoints = Checkpoints(storage_at(tmp_path), trial.trial_id, every=every, keep=keep)
    workload = cut_at(make_workload(DROPOUT), steps + 1)
    with suppress(Cut):
        run(train(trial, workload, make_backend("auto"), _SINGLE_PROCESS, checkpoints), lambda _: False)
    checkpoints.finish()
    return trial, checkpoints, tmp_path / "checkpoints" / trial.trial_id


def goes_on(trial, checkpoints):
    return run(
        train(trial, make_workload(DROPOUT), make_backend("auto"), _SINGLE_PROCESS, checkpoints), lambda _: False
    )


def test_the_newest_stay_until_the_trial_has_its_row(tmp_path):
    _, checkpoints, folder = started(tmp_path, 9)
    assert sorted(path.name for path in folder.iterdir()) == ["00000006", "00000006.json", "00000008", "00000008.json"]
    checkpoints.remove()
    assert not folder.exists()
    checkpoints.remove()


def test_half_a_checkpoint_is_none_and_a_broken_one_makes_way_for_the_one_before(tmp_path, undisturbed):
    trial, checkpoints, folder = started(tmp_path, 9)
    (folder / "00000008.json").unlink()  # killed before it was put into place
    assert comparable(goes_on(trial, checkpoints)) == comparable(undisturbed[CIRCUIT])
    trial, checkpoints, folder = started(tmp_path / "again", 9)
    files = sorted((folder / "00000008").glob("*.safetensors"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    for _ in range(2):  # a store may fail once
        assert (folder / "00000008.json").exists()
        with pytest.raises(StorageError, match=r"00000008: broken checkpoint \("):
            goes_on(trial, checkpoints)
    assert not (folder / "00000008.json").exists()
    assert json.loads((folder / "00000006.json").read_text())["checkpoint"]["step"] == 6
    assert comparable(goes_on(trial, checkpoints)) == comparable(undisturbed[CIRCUIT])


def test_what_is_written_late_is_the_state_of_its_step(tmp_path, monkeypatch, undisturbed):
    """The writer waits until the training has taken the next steps."""
    go_on, seen = threading.Event(), []
    write_share = module.write_share
    monkeypatch.setattr(module, "write_share", lambda *a: seen.append(go_on.wait(30)) or write_share(*a))
    trial = trial_of()
    checkpoints = Checkpoints(storage_at(tmp_path), trial.trial_id, every=5)
    workload = make_workload(DROPOUT)
    backward, taken = workload.backward, []

    def until(*arguments):
        taken.append(None)
        if len(taken) == 8:
            go_on.set()
            raise Cut
        return backward(*arguments)

    workload.backward = until
    with suppress(Cut):
        run(train(trial, workload, make_backend("auto"), _SINGLE_PROCESS, checkpoints), lambda _: False)
    checkpoints.finish()
    assert seen == [True], "the training did not wait for it"
    monkeypatch.undo()
    assert comparable(goes_on(trial, checkpoints)) == comparable(undisturbed[CIRCUIT])


def test_what_cannot_be_written_is_logged_and_the_training_goes_on(tmp_path, caplog, undisturbed):
    (tmp_path / "checkpoints").mkdir()
    trial = trial_of()
    folder = tmp_path / "checkpoints" / trial.trial_id
    folder.mkdir()
    (folder / "00000005").write_text("a file in the way")
    checkpoints = Checkpoints(storage_at(tmp_path), trial.trial_id, every=5)
    assert comparable(goes_on(trial, checkpoints)) == comparable(undisturbed[CIRCUIT])
    assert "the checkpoint of step 00000005 could not be written" in caplog.text
    assert sorted(folder.glob("*.json")) == [folder / "00000010.json"]
    assert checkpoints.n_failed == 1


def test_one_worker_on_a_gpu_writes_by_a_group_of_the_cpu(tmp_path, undisturbed, monkeypatch):
    """Ray Train makes a process group of one too, whose backend reaches GPUs alone; torch asks for one of the CPU."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("cuda:gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        group = dist.new_group(backend="gloo")
        outcome = go(Run("", trial_of(), (4, 4)), storage_at(tmp_path / "kept"), _SINGLE_PROCESS, group)
    finally:
        dist.destroy_process_group()
    assert comparable(outcome) == comparable(undisturbed[CIRCUIT])
    assert sorted(path.name for path in (tmp_path / "kept").glob("checkpoints/*/*.json")) == [
        "00000009.json",
        "00000012.json",
    ]


def test_epochs_measured_before_are_reported_again_and_may_stop_it(tmp_path, undisturbed):
    trial, checkpoints, _ = started(tmp_path, 11)
    epochs = []
    outcome = run(
        train(trial, make_workload(DROPOUT), make_backend("auto"), _SINGLE_PROCESS, checkpoints),
        lambda measurement: epochs.append(measurement.epoch) or measurement.epoch == 2,
    )
    assert epochs == [1, 2]
    assert outcome.ending is Ending.STOPPED_EARLY
    assert outcome.parameters_sha256 is None
    assert tuple(map(without_times, outcome.measurements)) == comparable(undisturbed[CIRCUIT]).measurements[:2]


def test_a_trial_began_when_it_first_began(tmp_path):
    trial, checkpoints, _ = started(tmp_path, 3)
    later = Checkpoints(storage_at(tmp_path), trial.trial_id, every=2)
    assert later.started_at > checkpoints.started_at
    goes_on(trial, later)
    assert later.started_at == checkpoints.started_at
