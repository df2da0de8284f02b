"""A training worker killed in mid-trial: the group goes on from the newest checkpoint and ends with the same rows."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from support.processes import name_of
from support.run_contexts import make_context, numbered_trial, rows_of, timeless
from support.small_tasks import a_language_task

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.config import Perturbation, Resources
from qsgd_ray.execution.train_group import run_trials
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.slow]

pytest.importorskip("transformers")

CIRCUIT = Perturbation(source="circuit", lambda_=5.0, n_qubits=2)
STEPS, EPOCHS, EVERY = 5, 4, 4
NAMES = ("trial_id", "arm", "trial")  # what tells two trials of the same settings apart


def training_workers() -> list[psutil.Process]:
    """Those of this process's group, itself among them."""
    return [process for process in psutil.Process().parent().children() if "RayTrainWorker" in name_of(process)]


@dataclass
class Deadly:
    """Answers circuits; at call `at` it kills a worker, once: its own process or the other one."""

    notes: Path
    at: int
    own: bool
    inner: Any = None

    def submit(self, spec, angles_bdnr, readout="z", keys_b=None):
        self.inner = self.inner or TorchBackend()
        with (self.notes / "calls").open("a") as calls:
            calls.write("x")
        if (self.notes / "calls").stat().st_size == self.at:
            victims = [p.pid for p in training_workers() if (p.pid == os.getpid()) is self.own]
            (self.notes / "victims").write_text(str(victims))
            os.kill(victims[0], signal.SIGKILL)
        return self.inner.submit(spec, angles_bdnr, readout, keys_b)


def settled(row: dict) -> dict:
    return {name: value for name, value in timeless(row).items() if name not in NAMES}


@pytest.mark.parametrize(("sharding", "own"), [("ddp", True), ("fsdp", False)])
def test_a_killed_worker_costs_the_steps_since_the_checkpoint_and_no_bit(cluster, tmp_path, sharding, own):
    """Two trials of the same settings and seed in one group: it dies in the second."""
    recipe = {"batch_size": 2, "steps_per_epoch": STEPS, "warmup_steps": 2, "decay": "linear", "clip_norm": 0.5}
    task = a_language_task(tmp_path, **recipe, n_answers=2, max_new_tokens=2)
    quiet = numbered_trial(0, CIRCUIT, workload=task, epochs=EPOCHS)
    killed = quiet.model_copy(update={"arm": quiet.arm.model_copy(update={"name": "killed"})})
    # One call is ahead of the first step. The fatal one is at the end of step 14: two steps after a checkpoint, in the
    # third of four epochs.
    undisturbed, fatal = 1 + EPOCHS * STEPS, 15
    circuits = Deadly(tmp_path, undisturbed + fatal, own)
    resources = Resources(sharding=sharding, checkpoint_steps=EVERY)
    context = make_context(tmp_path / "rows", cluster, circuits=circuits, resources=resources)
    run_trials([quiet, killed], context)

    assert (tmp_path / "victims").read_text() != "[]"
    rows = rows_of(context)
    assert [row["ending"] for row in rows.values()] == ["completed", "completed"]
    assert settled(rows[killed.trial_id]) == settled(rows[quiet.trial_id])
    measured = context.results.all_tables().measurements.to_pylist()
    curves = [[settled(row) for row in measured if row["trial_id"] == trial.trial_id] for trial in (quiet, killed)]
    assert curves[0]
    assert curves[0] == curves[1]
    # From the checkpoint of step 12 on: one call ahead and 8 steps.
    assert (tmp_path / "calls").stat().st_size <= undisturbed + fatal + 1 + (EPOCHS * STEPS - 12) + EVERY
    assert not list((Path(context.results.path) / "checkpoints").iterdir())


def test_a_trial_begins_with_the_workers_that_there_is_room_for(cluster, tmp_path):
    """And trains, but for rounding, what all of them would."""
    task = a_language_task(tmp_path, batch_size=8, steps_per_epoch=1)
    trial = numbered_trial(0, workload=task, workers=8, arm=numbered_trial(0).arm.model_copy(update={"eps": 1e-3}))
    assert cluster_cpus() < trial.workers
    context = make_context(tmp_path / "elastic", cluster, resources=Resources(least_workers=2, checkpoint_steps=1))
    run_trials([trial], context)
    row = rows_of(context)[trial.trial_id]
    assert row["ending"] == "completed", row["error"]
    assert 2 <= row["workers_at_end"] <= cluster_cpus() < row["workers"]
    alone = run(train(trial, make_workload(task), None), lambda _: False)
    assert row["train_loss"] == pytest.approx(alone.measurements[-1].train_loss, rel=1e-5)
    assert row["test_loss"] == pytest.approx(alone.test_loss, rel=1e-5)


def cluster_cpus() -> float:
    return ray.cluster_resources()["CPU"]
