"""Synthetic text classification: a `TextTask` comes in; its data, model, loss and metric go out.

workloads/_text_data.py defines the sequences, models/transformer.py the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import StudyError, TextTask
from qsgd_ray.models.transformer import TransformerClassifier, quantum_classifier
from qsgd_ray.optimizer.schedules import CONSTANT_RATE
from qsgd_ray.outcome import Evaluation, Work
from qsgd_ray.random_keys import named_entropy
from qsgd_ray.workloads._text_data import make_split
from qsgd_ray.workloads.protocol import check_rank

# Bounds the memory of a forward pass; beyond a few hundred sequences a larger batch is no faster.
_EVALUATION_BATCH = 512


class Batch(NamedTuple):
    """Sequences and their classes, on the workload's device.

    Attributes:
        tokens: int64, shape (batch, length), 0 <= token < vocabulary.
        labels: int64, shape (batch,), 0 <= label < n_classes.
    """

    tokens: Tensor
    labels: Tensor


class TextWorkload:
    """Classification of synthetic sequences (see `Workload`, workloads/protocol.py).

    Plain: constant learning rate, no clipping, float32, mean cross entropy in nats, accuracy of the largest logit.

    Args:
        settings: family, sizes and seed of the data, and the model.
        device: where the data lies.
    """

    rate = CONSTANT_RATE
    clip_norm = None
    scales_loss = False
    matmul_dtype = torch.float32

    def __init__(self, settings: TextTask, device: str | torch.device = "cpu") -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.steps_per_epoch = settings.train_size // settings.batch_size
        self._splits = {
            split: Batch(*(torch.from_numpy(array).to(self.device) for array in make_split(settings, split)))
            for split in ("train", "validation", "test")
        }

    def make_model(self, seed: int) -> nn.Module:
        """Make a model on the CPU whose weights depend on the seed alone; no global generator moves.

        The angles of quantum attention are drawn last, so a seed gives the other weights with and without them.
        """
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the generators of the devices too, which are not forked here.
            torch.default_generator.manual_seed(named_entropy("initial weights", seed) % 2**63)
            return _make_classifier(self.settings)

    def batches(self, seed: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's items of each batch of the epoch; sequences that fill no whole batch are left out.

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

    def _batches(self, seed: int, epoch: int, rank: int, world_size: int, start: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(named_entropy("order of training", seed, epoch) % 2**63)
        order = torch.randperm(self.settings.train_size, generator=generator)
        whole_batches = order[: self.steps_per_epoch * self.settings.batch_size].view(self.steps_per_epoch, -1)
        tokens, labels = self._splits["train"]
        for chosen in whole_batches[start:, rank::world_size].to(self.device):
            yield Batch(tokens[chosen], labels[chosen])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy of a batch, a scalar in nats.

        Args:
            model: maps tokens (batch, length) to logits (batch, n_classes).
            batch: sequences and labels.
        """
        return F.cross_entropy(model(batch.tokens), batch.labels)

    def backward(
        self,
        model: nn.Module,
        batch: Batch,
        world_size: int = 1,
        backward: Callable[[Tensor], object] = Tensor.backward,
    ) -> Tensor:
        """Add the gradient of this rank's mean loss, weighed by the size of its part against the mean part.

        Args:
            model: the model, perhaps in DistributedDataParallel or in shards.
            batch: this rank's part, n_r sequences.
            world_size: ranks w that train together.
            backward: differentiates a scalar loss.

        Returns:
            The weighed loss, a detached scalar in nats: mean cross entropy times n_r w / batch_size.
        """
        loss = self.loss(model, batch) * (len(batch.labels) * world_size / self.settings.batch_size)
        backward(loss)
        return loss.detach()

    def work(self, batch: Batch, world_size: int = 1) -> Work:  # noqa: ARG002
        """Count the tokens of a step; models as small as this are not limited by their arithmetic.

        Args:
            batch: not looked at, as all whole batches have the same size.
            world_size: not looked at either.
        """
        return Work(self.settings.batch_size * self.settings.length)

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], rank: int = 0, world_size: int = 1
    ) -> Evaluation:
        """Sum loss and right predictions over this rank's share of a split, in eval mode; put the model's mode back.

        Args:
            model: the bare model.
            split: "validation" or "test".
            rank: this rank, 0 <= rank < world_size; its share is items rank::world_size.
            world_size: ranks that evaluate together.

        Raises:
            StudyError: another split, or a rank that does not exist.
        """
        check_rank(rank, world_size)
        if split not in ("validation", "test"):
            raise StudyError(f"split: got {split!r}; allowed: 'validation' or 'test'")
        share = Batch(*(whole[rank::world_size] for whole in self._splits[split]))
        n_calls = math.ceil(math.ceil(len(self._splits[split].labels) / world_size) / _EVALUATION_BATCH)
        loss_sum, n_correct, was_training = 0.0, 0, model.training
        model.eval()
        try:
            # Not inference_mode: tensors that are made there can never enter autograd again.
            with torch.no_grad():
                for tokens, labels in zip(*(part.split(_EVALUATION_BATCH) for part in share), strict=True):
                    n_calls -= 1
                    logits = model(tokens).double()
                    loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
                    n_correct += int((logits.argmax(dim=1) == labels).sum())
                for _ in range(n_calls):  # all ranks call a model in shards, or none does
                    model(self._splits[split].tokens[:1])
        finally:
            model.train(was_training)
        return Evaluation(loss_sum, n_correct, len(share.labels))

    def answers(self, model: nn.Module, rank: int = 0, world_size: int = 1) -> None:
        """Return None: a classifier generates nothing.

        Args:
            model: not looked at.
            rank: not looked at.
            world_size: not looked at.
        """


def _make_classifier(settings: TextTask) -> TransformerClassifier:
    """Make the model; its weights are drawn from torch's global generator."""
    model, sizes = settings.model, (settings.vocabulary, settings.length, settings.n_classes)
    if (quantum := model.attention) is None:
        return TransformerClassifier(model, *sizes)
    return quantum_classifier(
        model,
        *sizes,
        spec=CircuitSpec(quantum.n_qubits, quantum.depth, quantum.entangle, quantum.rotations),
        readout=quantum.readout,
        per_head=quantum.per_head,
        phi=quantum.phi,
        compiled=quantum.compiled,
    )
