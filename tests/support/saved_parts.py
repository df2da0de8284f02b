"""Small trainings that are saved and restored by any number of processes, and what each of them holds afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.storage import StorageError, storage_at
from qsgd_ray.training._manifest import decode, file_name
from qsgd_ray.training._saved_state import state_tensors
from qsgd_ray.training._sharding import distribute, full_tensor
from qsgd_ray.training._state import Parts, Progress
from qsgd_ray.training.checkpoints import Checkpoints
from qsgd_ray.training.replica import Replica
from support.replicas import TIMEOUT, group, spawn

TRIAL, NAME = "trial", "00000002"
ALONE = Replica()


class Odd(nn.Module):
    """Rows that two and three processes cut unevenly, or cannot cut; types, a scalar, an empty tensor, a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.seven, self.one, self.two, self.cube = drawn(7, 3), drawn(1), drawn(2, 5), drawn(4, 2, 3)
        self.empty = drawn(0, 4)
        self.frozen = drawn(3)
        self.frozen.requires_grad_(False)
        self.register_buffer("flags", torch.rand(5, generator=generator) > 0.5)
        self.register_buffer("halves", torch.randn(3, 2, generator=generator).bfloat16())
        self.register_buffer("count", torch.tensor(seed))
        self.register_buffer("passing", torch.zeros(2), persistent=False)


def make_parts(replica: Replica, seed: int, stepped: bool) -> Parts:
    """Return the parts of a training of `Odd`; if `stepped`, it has moments, the same on any number of processes."""
    model = Odd(seed)
    network = distribute(model, replica) if replica.sharding == "fsdp" else model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = SuperpositionalAdamW(trained, 1e-2, source="sine", lambda_=0.5, n_qubits=2, telemetry_every=1)
    if stepped:
        for factor in (0.1, -0.3):
            for parameter in trained:
                parameter.grad = parameter.detach() * factor
            optimizer.step()
    schedules = [LambdaLR(optimizer, lambda step: 1.0)]
    return Parts(model, network, trained, optimizer, schedules, torch.amp.GradScaler("cpu", enabled=False))


def progress_of(replica: Replica, step: int = 2) -> Progress:
    """Return the progress of a training whose sum of losses names its process."""
    return Progress(torch.tensor(1.0 + replica.rank, dtype=torch.float64), step=step, wall_s=0.1, n_tokens=2**60 + 1)


def whole(parts: Parts) -> dict[str, Tensor]:
    """Return all saved tensors of a training, whole, on every process."""
    return {name: full_tensor(tensor).clone() for name, tensor in state_tensors(parts).items()}


def save_then_restore(replica: Replica, folder: Path, group: Any, saves: bool) -> dict[str, Tensor]:
    """Save a training, or restore it into another one; return all its tensors and its sum of losses."""
    parts = make_parts(replica, seed=1 if saves else 2, stepped=saves)
    checkpoints = Checkpoints(storage_at(folder), TRIAL, every=1, replica=replica, group=group)
    if saves:
        progress = progress_of(replica)
        checkpoints.save(parts, progress)
        checkpoints.finish()
        assert checkpoints.n_failed == 0
    else:
        progress = checkpoints.restore(parts, replica.device)
        assert progress.n_tokens == 2**60 + 1
    return whole(parts) | {"loss_sum": progress.loss_sum}


class Task(NamedTuple):
    """A training that is saved into a folder, or restored from it, by processes of one layout."""

    folder: str
    sharding: str
    saves: bool


def _work(rank: int, world: int, folder: str, number: int, tasks: list[Task]) -> None:
    torch.set_num_threads(1)
    place = Path(folder)
    with group(place / f"meet-{number}", rank, world):
        files = dist.new_group(backend="gloo", timeout=TIMEOUT)
        tensors = []
        for task in tasks:
            replica = Replica(rank, world, sharding=task.sharding)
            tensors.append(save_then_restore(replica, place / task.folder, files, task.saves))
            dist.barrier()
        torch.save(tensors, place / f"{number}-{rank}.pt")


def on_processes(world: int, folder: Path, number: int, tasks: list[Task]) -> list[tuple[Task, dict[str, Tensor]]]:
    """Save and restore on so many processes; return each task with what each process has afterwards.

    Args:
        world: number of processes; 1: this one.
        folder: where the tasks' folders are.
        number: number of this call, another for each call on a folder.
        tasks: what is done, one after the other.
    """
    if world == 1:
        return [(task, save_then_restore(ALONE, folder / task.folder, None, task.saves)) for task in tasks]
    spawn(_work, (world, str(folder), number, tasks), world)
    by_rank = [torch.load(folder / f"{number}-{rank}.pt") for rank in range(world)]
    return [(task, tensors) for each in by_rank for task, tensors in zip(tasks, each, strict=True)]


def read_by_the_library(folder: Path, name: str) -> dict[str, Tensor]:
    """Return a checkpoint's tensors, whole: the library of safetensors reads all files into this one process."""
    manifest = decode((folder / f"{name}.json").read_bytes())
    files = [load_file(folder / name / file_name(rank)) for rank in range(manifest.world_size)]
    tensors = {}
    for key in {key for file in files for key in file}:
        pieces = [file[key] for file in files if key in file]
        tensors[key] = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    return tensors


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Return True where two sets of tensors are the same, bit for bit."""
    assert ours.keys() == theirs.keys()
    return all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)


def restored(folder: Path) -> tuple[Progress | None, Parts]:
    """Restore the checkpoint of a trial's folder; return the progress and the parts."""
    parts = make_parts(ALONE, 2, stepped=False)
    checkpoints = Checkpoints(storage_at(folder.parent.parent), folder.name, every=1)
    return checkpoints.restore(parts, "cpu"), parts


def refused(folder: Path) -> str:
    """Return the one line by which a checkpoint is refused."""
    with pytest.raises(StorageError) as error:
        restored(folder)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) <= 300 + len(str(folder))
    return line


def without_loss(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors but for the sum of losses, which each process has for itself."""
    return {name: tensor for name, tensor in tensors.items() if name != "loss_sum"}


def flip(content: bytes, where: int) -> bytes:
    """Return the bytes with one of them altered."""
    changed = bytearray(content)
    changed[where] ^= 1 + where % 255
    return bytes(changed)
