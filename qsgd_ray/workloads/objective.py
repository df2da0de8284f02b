"""Minimising an objective without data: an `ObjectiveTask` comes in; a `Workload` goes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from qsgd_ray.config import ObjectiveTask
from qsgd_ray.random_keys import named_seed
from qsgd_ray.workloads._own_workload import OwnBatch, OwnWorkload
from qsgd_ray.workloads._splits import Part
from qsgd_ray.workloads._user_code import user_code


class ObjectiveWorkload(OwnWorkload):
    """Training on problem instances that each step draws by its name, (seed, epoch, step) (see `Workload`).

    Args:
        settings: the user's.
        device: where the instances lie.

    Raises:
        ValueError: what a method of the class returned cannot be used; one line.
    """

    def __init__(self, settings: ObjectiveTask, device: str | torch.device = "cpu") -> None:
        self._task = settings
        at = torch.device(device)
        held_out = {
            name: self._part(settings.n_held_out, name, at, "held-out instances", settings.data_seed, name)
            for name in ("validation", "test")
        }
        super().__init__(settings, at, held_out, settings.steps_per_epoch)

    def _part(self, n: int, name: Any, device: torch.device, *purpose: str | int) -> Part:
        """Return n instances whose draws are named by their purpose."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(named_seed(*purpose))
            generator = torch.Generator().manual_seed(named_seed(*purpose, "generator"))
            with user_code(self._task):
                instances = self._task.instances(generator, n)
            part = Part(instances, name, device)
        if part.n != n:
            raise ValueError(f"instances: got {part.n}; allowed: {n}, as many as are asked for")
        return part

    def _batches(self, seed: int, epoch: int, rank: int, world_size: int, start: int) -> Iterator[OwnBatch]:
        size = self.settings.batch_size
        chosen = torch.arange(size)[rank::world_size]
        for step in range(start, self.steps_per_epoch):
            part = self._part(size, "train", self.device, "instances", seed, epoch, step)
            yield OwnBatch(part.take(chosen), len(chosen))
