"""A workload is a model, its data, a loss, a metric and a target: settings come in, a `Workload` goes out.

The training loop knows nothing else of what it trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import torch

from qsgd_ray.config import Task, TextTask
from qsgd_ray.optimizer.schedules import RateShape
from qsgd_ray.outcome import AnswerCounts, Evaluation, Work
from qsgd_ray.workloads.llm import LanguageWorkload
from qsgd_ray.workloads.text import TextWorkload

__all__ = ["Workload", "make_workload"]


class Workload(Protocol):
    """What can be trained. Ranks share each batch of `settings.batch_size`: rank r of w takes items r::w, at least one.

    `steps_per_epoch` counts whole batches. `rate`: how the learning rate goes over a trial. `clip_norm`: the largest
    norm of a step's gradient, None: any. `scales_loss`: whether gradients are too small for the type they have, and
    the loss is to be scaled up. `matmul_dtype`: in which most of the work is done.
    """

    steps_per_epoch: int
    scales_loss: bool
    matmul_dtype: torch.dtype

    @property
    def settings(self) -> Task: ...

    @property
    def rate(self) -> RateShape: ...

    @property
    def clip_norm(self) -> float | None: ...

    def make_model(self, seed: int) -> torch.nn.Module:
        """A new model on the CPU; its weights are a pure function of the seed, and no global generator moves."""
        ...

    def batches(self, seed: int, epoch: int, rank: int, world_size: int, start: int = 0) -> Iterator[Any]:
        """One rank's part of every batch of an epoch (from 1), in an order that follows from seed and epoch alone;
        from step `start` of it (from 0) on."""
        ...

    def backward(
        self,
        model: torch.nn.Module,
        batch: Any,
        world_size: int,
        backward: Callable[[torch.Tensor], object] = torch.Tensor.backward,
    ) -> torch.Tensor:
        """Add the gradients of one rank's part of a batch, whose mean over the ranks is that of the batch's loss.

        `backward` differentiates a loss, e.g. a scaled one. Returns a detached scalar, whose mean over the ranks is the
        batch's loss.
        """
        ...

    def work(self, batch: Any, world_size: int) -> Work:
        """What the parts of all ranks of this batch are."""
        ...

    def evaluate(
        self, model: torch.nn.Module, split: Literal["validation", "test"], rank: int, world_size: int
    ) -> Evaluation:
        """Sums over one rank's share of a split, without dropout and without gradients.

        All ranks call the model equally often: a model in shards is put together by all of them.
        """
        ...

    def answers(self, model: torch.nn.Module, rank: int, world_size: int) -> AnswerCounts | None:
        """How one rank's share of the test problems is answered by generation; None: nothing is to be generated."""
        ...


def make_workload(settings: Task, device: str | torch.device = "cpu") -> Workload:
    """The workload that `settings` describe, its data on `device`. StudyError, one line: what is missing for it."""
    if isinstance(settings, TextTask):
        return TextWorkload(settings, device)
    return LanguageWorkload(settings, device)
