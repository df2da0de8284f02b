"""Trainings that are cut off and go on, by one process or by several; what each process found goes to a file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import Outcome
from qsgd_ray.storage import Storage, storage_at
from qsgd_ray.training.checkpoints import Checkpoints
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import make_workload

TIMEOUT = timedelta(seconds=180)


class Cut(Exception):
    """Planted."""


def cut_at(workload, step: int):
    """The same workload, whose `step`-th gradient from now is never there."""
    backward, taken = workload.backward, []

    def until(*arguments):
        taken.append(None)
        if len(taken) == step:
            raise Cut
        return backward(*arguments)

    workload.backward = until
    return workload


@dataclass(frozen=True)
class Run:
    """A trial with checkpoints, once to its end and once cut off at the steps `cuts`; `ends`: and then to its end."""

    name: str
    trial: Trial
    cuts: tuple[int, ...] = ()
    sharding: str = "ddp"
    every: int = 3
    ends: bool = True


def go(run_: Run, where: Storage | None, replica: Replica, group=None) -> Outcome | None:
    """The outcome, after all cuts."""
    for cut in (*run_.cuts, *([None] if run_.ends else [])):
        workload = make_workload(run_.trial.workload)
        if cut is not None:
            cut_at(workload, cut)
        kept = None
        if where is not None:
            kept = Checkpoints(where, run_.trial.trial_id, every=run_.every, replica=replica, group=group)
        with suppress(Cut):
            return run(train(run_.trial, workload, make_backend("auto"), replica, kept), lambda _: False)
        assert kept is not None
        kept.finish()
        if replica.world_size > 1:
            dist.barrier()
    assert not run_.ends
    return None


def work(rank: int, world: int, folder: str, runs: list[Run]) -> None:
    """One of `world` processes: every run undisturbed and cut off."""
    torch.set_num_threads(1)
    place = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        group = dist.new_group(backend="gloo", timeout=TIMEOUT)
        found = {}
        for one in runs:
            replica = Replica(rank, world, sharding=one.sharding)
            found[one.name] = (
                go(replace(one, cuts=(), ends=True), None, replica),
                go(one, storage_at(place / one.name), replica, group),
            )
        torch.save(found, place / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
