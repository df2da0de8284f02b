"""Protocol of a workload: a model, its data, a loss and a metric, as the training loop sees them.

The loop (training/loop.py) knows nothing else of what it trains. A new workload takes three steps:

1. Settings: a frozen class in config/workload.py with a `kind` of its own, `batch_size`, `target_accuracy` and
   `accuracy_name`, and that class in the union `Task`. All that decides the data belongs into it, as the settings name
   a trial's rows.
2. A class with the members of `Workload`, made from (settings, device). It need not inherit from `Workload`.
   workloads/text.py is the shorter of the two there are; tests/workloads/test_protocol.py has one of thirty lines.
3. A line in the table `_WORKLOADS` (workloads/__init__.py); a user's class has a method `workload` instead.

Two laws keep results comparable, and the tests of a workload should hold it to them:

- A draw depends on its purpose alone: weights on the seed, the order of the data on (seed, epoch). No method touches a
  global generator, so that arms with the same seed are paired and a restarted training sees what it would have seen.
- Ranks share the work of one process: rank r of w ranks takes items r, r + w, r + 2 w, ... (`items[r::w]`) of each
  batch and of each held-out split. The mean over the ranks of gradients and losses is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import torch

from qsgd_ray.config import StudyError, Task
from qsgd_ray.optimizer.schedules import RateShape
from qsgd_ray.outcome import AnswerCounts, Evaluation, Work


class Workload(Protocol):
    """Model, data, loss and metric of one training task.

    Attributes:
        settings: the settings that the workload was made from; their `batch_size` is that of all ranks together.
        steps_per_epoch: whole batches of an epoch, >= 1; a trial is measured after each epoch.
        rate: shape of the learning rate over a trial, e.g. `CONSTANT_RATE`.
        clip_norm: largest Euclidean norm that the gradient of a step keeps, > 0; None: no clipping.
        scales_loss: True where gradients may underflow (float16); the loop then scales the loss up, and leaves out
            steps whose gradients overflow.
        matmul_dtype: type of most matrix products; a utilisation is against the peak of the hardware in this type.
    """

    steps_per_epoch: int
    scales_loss: bool
    matmul_dtype: torch.dtype

    @property
    def settings(self) -> Task:
        """Return the settings that the workload was made from."""
        ...

    @property
    def rate(self) -> RateShape:
        """Return the shape of the learning rate over a trial."""
        ...

    @property
    def clip_norm(self) -> float | None:
        """Return the largest norm of a step's gradient; None: no clipping."""
        ...

    def make_model(self, seed: int) -> torch.nn.Module:
        """Make a model on the CPU; its weights are a pure function of the seed, and no global generator moves.

        Parameters that need no gradient are frozen: the optimizer never sees them.
        """
        ...

    def batches(self, seed: int, epoch: int, rank: int, world_size: int, start: int = 0) -> Iterator[Any]:
        """Yield one rank's part of the batches of an epoch, in an order that follows from (seed, epoch) alone.

        Args:
            seed: the trial's seed, >= 0.
            epoch: number of the epoch, from 1.
            rank: this rank, 0 <= rank < world_size.
            world_size: ranks that train together, 1 to the batch size, so that each has an item of every batch.
            start: first step of the epoch to yield, 0 to `steps_per_epoch`; > 0 where a training continues.

        Returns:
            An iterator over `steps_per_epoch - start` batches, of any type that `backward` and `work` understand.

        Raises:
            StudyError: a rank that does not exist, or more ranks than items in a batch.
        """
        ...

    def backward(
        self,
        model: torch.nn.Module,
        batch: Any,
        world_size: int,
        backward: Callable[[torch.Tensor], object] = torch.Tensor.backward,
    ) -> torch.Tensor:
        """Add the gradients of one rank's part of a batch to the parameters' `grad`.

        The mean of these gradients over the ranks is the gradient of the whole batch's loss; so a rank whose part is
        larger than another's weighs its own mean accordingly. This method may split its part into micro batches.

        Args:
            model: the model of `make_model`, perhaps in DistributedDataParallel or in shards (FSDP2), in training mode.
            batch: one item of `batches`.
            world_size: ranks that train together.
            backward: differentiates a scalar loss; the loop passes one that scales the loss first.

        Returns:
            A detached scalar on the device; its mean over the ranks is the batch's loss (nats a sequence or token).
        """
        ...

    def work(self, batch: Any, world_size: int) -> Work:
        """Count tokens and floating point operations of a step.

        Args:
            batch: one rank's part of the step's batch.
            world_size: ranks that train together.

        Returns:
            The counts of the parts of all ranks together; 0 where the workload does not count.
        """
        ...

    def evaluate(
        self, model: torch.nn.Module, split: Literal["validation", "test"], rank: int, world_size: int
    ) -> Evaluation:
        """Sum loss and right predictions over one rank's share of a split, without dropout and without gradients.

        All ranks call the model equally often, even where a share is empty: a model in shards is gathered by all of
        them together. The model's mode is put back.

        Args:
            model: the bare model, whole or in shards.
            split: "validation", after every epoch, or "test", at the end of a confirmation.
            rank: this rank, 0 <= rank < world_size.
            world_size: ranks that evaluate together.

        Returns:
            Sums over the share; the sums of all ranks add up to those of the split.
        """
        ...

    def answers(self, model: torch.nn.Module, rank: int, world_size: int) -> AnswerCounts | None:
        """Generate answers to one rank's share of the test problems, and count the right ones.

        Args:
            model: the bare model with all its weights.
            rank: this rank, 0 <= rank < world_size.
            world_size: ranks that generate together.

        Returns:
            Counts over the share; None where the workload has nothing to generate.
        """
        ...


def check_rank(rank: int, world_size: int, batch_size: int | None = None) -> None:
    """Refuse a rank that does not exist, and one that a batch has no item for.

    Args:
        rank: a rank, from 0.
        world_size: number of ranks.
        batch_size: items of a batch that the ranks share. None: they share no batch.

    Raises:
        StudyError: not 0 <= rank < world_size, or more ranks than items.
    """
    if not 0 <= rank < world_size:
        raise StudyError(f"rank: got {rank} of world_size {world_size}; allowed: 0 <= rank < world_size")
    if batch_size is not None and world_size > batch_size:
        raise StudyError(f"world_size: got {world_size}; allowed: at most batch_size ({batch_size})")
