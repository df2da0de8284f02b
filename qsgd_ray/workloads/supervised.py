"""Supervised learning by a class of the user's own: a `SupervisedTask` comes in; a `Workload` goes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from qsgd_ray.config import Splits, SupervisedTask
from qsgd_ray.random_keys import named_seed
from qsgd_ray.workloads._own_workload import OwnBatch, OwnWorkload
from qsgd_ray.workloads._splits import parts_of
from qsgd_ray.workloads._user_code import user_code


class SupervisedWorkload(OwnWorkload):
    """Training on the items of a data set, in an order that each epoch draws anew (see `Workload`).

    Args:
        settings: the user's.
        device: where the data lies.

    Raises:
        ValueError: what a method of the class returned cannot be used; one line.
    """

    def __init__(self, settings: SupervisedTask, device: str | torch.device = "cpu") -> None:
        device, seed = torch.device(device), settings.data_seed
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(named_seed("data", seed))
            generator = torch.Generator().manual_seed(named_seed("data", "generator", seed))
            with user_code(settings):
                splits = self._splits(settings, generator)
            parts = parts_of(splits, device)
        size, self._train = settings.batch_size, parts.pop("train")
        if size > self._train.n:
            raise ValueError(f"batch_size: got {size}; allowed: at most the {self._train.n} items of the training data")
        super().__init__(settings, device, parts, self._train.n // size)

    def _batches(self, seed: int, epoch: int, rank: int, world_size: int, start: int) -> Iterator[OwnBatch]:
        n_steps, size = self.steps_per_epoch, self.settings.batch_size
        generator = torch.Generator().manual_seed(named_seed("order of training", seed, epoch))
        order = torch.randperm(self._train.n, generator=generator)
        for whole in order[: n_steps * size].view(n_steps, size)[start:]:
            yield self._batch(whole, whole[rank::world_size])

    def _splits(self, settings: Any, generator: torch.Generator) -> Splits:
        """Return the data as the class states them."""
        splits: Splits = settings.data(generator)
        return splits

    def _batch(self, whole: torch.Tensor, chosen: torch.Tensor) -> OwnBatch:  # noqa: ARG002
        """Return the batch of the chosen items; `whole` are those of all ranks."""
        with user_code(self.settings):  # of a data set
            items = self._train.take(chosen)
        return OwnBatch(items, len(chosen))
