"""Trainings that are interrupted and continue, in one process or in several; each writes its outcomes to a file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
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
from support.replicas import TIMEOUT, group


class Cut(Exception):
    """A planted failure."""


def cut_at(workload, step: int):
    """Return the same workload; its `step`-th gradient from now raises `Cut`."""
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
    """A trial with checkpoints, cut off at the steps `cuts`, and then, if `ends`, run to its end."""

    name: str
    trial: Trial
    cuts: tuple[int, ...] = ()
    sharding: str = "ddp"
    every: int = 3
    ends: bool = True


def go(planned: Run, storage: Storage | None, replica: Replica, group=None) -> Outcome | None:
    """Run a trial through all its cuts; return the outcome, None where it does not end."""
    for cut in (*planned.cuts, *([None] if planned.ends else [])):
        workload = make_workload(planned.trial.workload)
        if cut is not None:
            cut_at(workload, cut)
        checkpoints = None
        if storage is not None:
            checkpoints = Checkpoints(
                storage, planned.trial.trial_id, every=planned.every, replica=replica, group=group
            )
        with suppress(Cut):
            return run(train(planned.trial, workload, make_backend("auto"), replica, checkpoints), lambda _: False)
        assert checkpoints is not None
        checkpoints.finish()
        if replica.world_size > 1:
            dist.barrier()
    assert not planned.ends
    return None


def work(rank: int, world: int, folder: str, runs: list[Run]) -> None:
    """Run every run in one of `world` processes, undisturbed and cut off; write both outcomes to a file."""
    torch.set_num_threads(1)
    place = Path(folder)
    with group(place / "meet", rank, world):
        files = dist.new_group(backend="gloo", timeout=TIMEOUT)
        outcomes = {}
        for planned in runs:
            replica = Replica(rank, world, sharding=planned.sharding)
            outcomes[planned.name] = (
                go(replace(planned, cuts=(), ends=True), None, replica),
                go(planned, storage_at(place / planned.name), replica, files),
            )
        torch.save(outcomes, place / f"{rank}.pt")
