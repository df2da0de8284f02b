"""Training by the methods of a user's class: the part that all such tasks share, models, losses and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from qsgd_ray.config import ObjectiveTask, StudyError, SupervisedTask
from qsgd_ray.config.metric import Metric
from qsgd_ray.optimizer.schedules import CONSTANT_RATE
from qsgd_ray.outcome import Evaluation, Work
from qsgd_ray.random_keys import named_seed
from qsgd_ray.workloads._named_draws import named_draws
from qsgd_ray.workloads._splits import Part
from qsgd_ray.workloads._user_code import user_code
from qsgd_ray.workloads.protocol import check_rank

# A batch of an evaluation keeps no activations: it takes no more memory than a step of a quarter of its items.
_EVALUATION_BATCHES = 4


class OwnBatch(NamedTuple):
    """A batch as the user's methods see it, and the number of its items.

    Attributes:
        items: of tensors a tuple of their rows, of a data set what torch's `default_collate` makes of its items.
        n: number of items.
        lengths: tokens of each item of the batch, over the parts of all ranks; empty: they are not known.
    """

    items: Any
    n: int
    lengths: tuple[int, ...] = ()


class OwnWorkload:
    """Training by the methods of a user's class (see `Workload`, workloads/protocol.py).

    Args:
        settings: the user's.
        device: where the data lies.
        held_out: the validation and the test split by name.
        steps_per_epoch: whole batches of an epoch.
    """

    rate = CONSTANT_RATE
    scales_loss = False
    matmul_dtype = torch.float32

    def __init__(
        self,
        settings: SupervisedTask | ObjectiveTask,
        device: torch.device,
        held_out: dict[str, Part],
        steps_per_epoch: int,
    ) -> None:
        self.settings = settings
        self.device = device
        self.clip_norm = settings.clip_norm
        self.steps_per_epoch = steps_per_epoch
        self._held_out = held_out
        self._metrics = {metric.name: metric for metric in settings.measured if metric.name != "loss"}

    def make_model(self, seed: int) -> nn.Module:
        """Make a model on the CPU whose weights depend on the seed alone; no global generator moves.

        Draws are named by their kind, shape and number, so that layers which two arms share start alike.
        """
        with named_draws("initial weights", seed) as generator, user_code(self.settings):
            model = self._model(generator)
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: got a {type(model).__name__}; allowed: a torch.nn.Module")
        parameters = dict(model.named_parameters())
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise ValueError("model: got no parameter that needs a gradient; allowed: at least one")
        for name, parameter in parameters.items():
            if parameter.device.type != "cpu":
                raise ValueError(f"model: got {name} on {parameter.device}; allowed: the CPU, workers move the model")
        return model

    def _model(self, generator: torch.Generator) -> nn.Module:
        return self.settings.model(generator)

    def batches(self, seed: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0) -> Iterator[OwnBatch]:
        """Yield this rank's items of each batch of the epoch; items that fill no whole batch are left out.

        Args:
            seed: the trial's seed.
            epoch: number of the epoch; each has an order of its own.
            rank: this rank, 0 <= rank < world_size.
            world_size: ranks that train together, 1 to batch_size.
            start: first step of the epoch to yield, from 0.

        Raises:
            StudyError: a rank that does not exist, or more ranks than items in a batch.
        """
        check_rank(rank, world_size, self.settings.batch_size)
        return self._batches(seed, epoch, rank, world_size, start)

    def _batches(self, seed: int, epoch: int, rank: int, world_size: int, start: int) -> Iterator[OwnBatch]:
        """Yield this rank's items of each batch of the epoch, from step `start` on."""
        raise NotImplementedError

    def backward(
        self,
        model: nn.Module,
        batch: OwnBatch,
        world_size: int = 1,
        backward: Callable[[Tensor], object] = Tensor.backward,
    ) -> Tensor:
        """Add the gradient of this rank's mean loss, weighed by the size of its part against the mean part.

        Args:
            model: the model, perhaps in DistributedDataParallel or in shards.
            batch: this rank's part.
            world_size: ranks that train together.
            backward: differentiates a scalar loss.

        Returns:
            The weighed loss, a detached scalar; its mean over the ranks is the batch's loss.

        Raises:
            ValueError: the class's `loss` returned no scalar with a gradient; one line.
        """
        loss = self._loss(model, batch)
        if not loss.requires_grad:
            raise ValueError(
                "loss: got a scalar without a gradient; allowed: one that depends on the model's parameters"
            )
        loss = loss * (batch.n * world_size / self.settings.batch_size)
        backward(loss)
        return loss.detach()

    def _loss(self, model: nn.Module, batch: OwnBatch) -> Tensor:
        with user_code(self.settings):
            loss = self.settings.loss(model, batch.items)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            shape = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise ValueError(f"loss: got {shape}; allowed: one real number, the mean over the batch")
        return loss.reshape(())

    def work(self, batch: OwnBatch, world_size: int = 1) -> Work:  # noqa: ARG002
        """Count nothing: what a user's model computes is not known.

        Args:
            batch: not looked at.
            world_size: not looked at either.
        """
        return Work(0)

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], rank: int = 0, world_size: int = 1
    ) -> Evaluation:
        """Sum loss and metrics over this rank's share of a split, in eval mode; put the model's mode back.

        Args:
            model: the bare model.
            split: "validation" or "test".
            rank: this rank, 0 <= rank < world_size; its share is items rank::world_size.
            world_size: ranks that evaluate together.

        Raises:
            StudyError: another split, or a rank that does not exist.
            ValueError: what the class's `loss` or `metrics` returned cannot be used; one line.
        """
        check_rank(rank, world_size)
        if split not in ("validation", "test"):
            raise StudyError(f"split: got {split!r}; allowed: 'validation' or 'test'")
        part, size = self._held_out[split], _EVALUATION_BATCHES * self.settings.batch_size
        share = torch.arange(part.n)[rank::world_size]
        n_calls = math.ceil(math.ceil(part.n / world_size) / size)
        loss_sum, totals, was_training = 0.0, dict.fromkeys(self._metrics, (0.0, 0.0)), model.training
        devices = [self.device] if self.device.type == "cuda" else []
        model.eval()
        try:
            # Noise of a loss is the same in every epoch and arm, and leaves the generator of dropout alone.
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                torch.manual_seed(named_seed("evaluation", self.settings.data_seed, split, rank))
                for index in range(n_calls):
                    chosen = share[index * size : (index + 1) * size]
                    # All ranks call a model in shards, or none does; a call beyond a share counts nothing.
                    counted = len(chosen) > 0
                    with user_code(self.settings):  # of a data set
                        items = part.take(chosen if counted else torch.zeros(1, dtype=torch.int64))
                    batch = OwnBatch(items, len(chosen))
                    loss, sums = self._measured(model, batch)
                    if counted:
                        loss_sum += loss * batch.n
                        totals = {name: _added(totals[name], sums[name]) for name in totals}
        finally:
            model.train(was_training)
        as_sums = {name for name, metric in self._metrics.items() if metric.kind == "sum"}
        sums_out = {name: (total, None if name in as_sums else n) for name, (total, n) in totals.items()}
        return Evaluation(loss_sum, None, len(share), sums_out)

    def _measured(self, model: Any, batch: OwnBatch) -> tuple[float, dict[str, tuple[float, float]]]:
        """Return the mean loss of a batch, and sum and count of each metric."""
        return self._loss(model, batch).item(), self._sums(model, batch)

    def _sums(self, model: nn.Module, batch: OwnBatch) -> dict[str, tuple[float, float]]:
        """Return sum and count of each metric over a batch, as the class returns them."""
        with user_code(self.settings):
            returned = self.settings.metrics(model, batch.items) if self._metrics else {}
        names = [*returned] if isinstance(returned, Mapping) else []
        if not isinstance(returned, Mapping) or {*names} != self._metrics.keys():
            came = ", ".join(map(str, names)) or (
                "no metric" if returned in (None, {}) else f"a {type(returned).__name__}"
            )
            raise ValueError(f"metrics: got {came}; allowed: {', '.join(self._metrics)}, as measured names them")
        return {name: _pair(metric, returned[name]) for name, metric in self._metrics.items()}

    def answers(self, model: nn.Module, rank: int = 0, world_size: int = 1) -> None:
        """Return None: nothing is generated.

        Args:
            model: not looked at.
            rank: not looked at.
            world_size: not looked at.
        """


def _pair(metric: Metric, value: Any) -> tuple[float, float]:
    """Return a metric's sum and count over a batch as numbers; one line of ValueError where they are none."""
    try:
        total, count = value
        numbers = float(total), float(count)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"metrics: got {value!r:.60} as {metric.name}; allowed: a sum and a count") from None
    if metric.kind == "share" and not 0 <= numbers[0] <= numbers[1]:
        raise ValueError(f"metrics: got {numbers} as {metric.name}; allowed: 0 <= sum <= count, as it is a share")
    return numbers


def _added(left: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    return left[0] + right[0], left[1] + right[1]
