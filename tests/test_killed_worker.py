"""A training worker killed in mid-trial: the group goes on from the newest checkpoint and ends with the same rows."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from problems_made import a_language_task
from test_distributed import a_trial, rows_of, site_of, timeless

from qsgd_ray.circuits.in_process import TorchBackend
from qsgd_ray.config import Perturbation, Resources
from qsgd_ray.distributed import run_trials
from qsgd_ray.training import run, train
from qsgd_ray.workloads import make_workload

pytest.importorskip("transformers")

CIRCUIT = Perturbation(source="circuit", lambda_=5.0, n_qubits=2)
STEPS, EVERY = 5, 4


def training_workers() -> list[psutil.Process]:
    """Those of this process's group, itself among them."""
    own = psutil.Process()
    return [process for process in own.parent().children() if "RayTrainWorker" in " ".join(process.cmdline())]


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


@pytest.mark.parametrize(("sharding", "own"), [("ddp", True), ("fsdp", False)])
def test_a_killed_worker_costs_the_steps_since_the_checkpoint_and_no_bit(cluster, tmp_path, sharding, own):
    recipe = {"batch_size": 2, "steps_per_epoch": STEPS, "warmup_steps": 2, "decay": "linear", "clip_norm": 0.5}
    task = a_language_task(tmp_path, **recipe, n_answers=2, max_new_tokens=2)
    trial = a_trial(0, CIRCUIT, workload=task, epochs=4)
    resources = Resources(sharding=sharding, checkpoint_steps=EVERY)
    quiet = site_of(tmp_path / "undisturbed", cluster, circuits=TorchBackend(), resources=resources)
    run_trials([trial], quiet)

    at = 15  # the call at the end of step 14: two steps after a checkpoint, in the third of four epochs
    killed = site_of(tmp_path / "killed", cluster, circuits=Deadly(tmp_path, at, own), resources=resources)
    run_trials([trial], killed)
    assert (tmp_path / "victims").read_text() != "[]"
    assert rows_of(killed)[trial.trial_id]["ending"] == "completed"
    assert timeless(rows_of(killed)[trial.trial_id]) == timeless(rows_of(quiet)[trial.trial_id])
    curves = [[timeless(row) for row in site.results.read().measurements.to_pylist()] for site in (quiet, killed)]
    assert curves[0] == curves[1]
    # 14 steps and the call ahead of the first; then from the checkpoint of step 12 on: one ahead and 8 steps.
    assert (tmp_path / "calls").stat().st_size <= at + 1 + (4 * STEPS - 12) + EVERY
    for site in (quiet, killed):
        assert not list((Path(site.results.path) / "checkpoints").iterdir())


def test_a_trial_begins_with_the_workers_that_there_is_room_for(cluster, tmp_path):
    """And trains, but for rounding, what all of them would."""
    task = a_language_task(tmp_path, batch_size=8, steps_per_epoch=1)
    trial = a_trial(0, workload=task, workers=8, arm=a_trial(0).arm.model_copy(update={"eps": 1e-3}))
    assert cluster_cpus() < trial.workers
    site = site_of(tmp_path / "elastic", cluster, resources=Resources(least_workers=2, checkpoint_steps=1))
    run_trials([trial], site)
    row = rows_of(site)[trial.trial_id]
    assert row["ending"] == "completed", row["error"]
    assert 2 <= row["workers_at_end"] <= cluster_cpus() < row["workers"]
    alone = run(train(trial, make_workload(task), None), lambda _: False)
    assert row["train_loss"] == pytest.approx(alone.measurements[-1].train_loss, rel=1e-5)
    assert row["test_loss"] == pytest.approx(alone.test_loss, rel=1e-5)


def cluster_cpus() -> float:
    return ray.cluster_resources()["CPU"]
