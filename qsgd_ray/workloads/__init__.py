"""A workload is a model, its data, a loss, a metric and a target: settings come in, a `Workload` goes out.

The training loop knows nothing else of what it trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import torch

from qsgd_ray.config import TextTask
from qsgd_ray.workloads.text import Batch, Evaluation, TextWorkload

__all__ = ["Batch", "Evaluation", "Workload", "make_workload"]


class Workload(Protocol):
    """What can be trained. Ranks share each batch of `settings.batch_size`: rank r of w takes items r::w.

    `steps_per_epoch` counts whole batches.
    """

    settings: TextTask
    steps_per_epoch: int

    def make_model(self, seed: int) -> torch.nn.Module:
        """A new model; its weights are a pure function of the seed, and no global generator moves."""
        ...

    def batches(self, seed: int, epoch: int, rank: int, world_size: int) -> Iterator[Batch]:
        """One rank's part of every batch of an epoch, in an order that is a pure function of seed and epoch."""
        ...

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch: a scalar to differentiate."""
        ...

    def evaluate(
        self, model: torch.nn.Module, split: Literal["validation", "test"], rank: int, world_size: int
    ) -> Evaluation:
        """Sums over one rank's share of a split, without dropout and without gradients."""
        ...


def make_workload(settings: TextTask, device: str | torch.device = "cpu") -> Workload:
    """The workload that `settings` describe, its data on `device`."""
    return TextWorkload(settings, device)
