"""Synthetic text classification: a `TextTask` comes in; its data, model, loss and metric go out.

A split of n sequences holds every class equally often (to within one), in random order. The evidence in a sequence
shows its label, except in round(difficulty * n) of them, chosen at random: there it shows each class equally often
whatever the label is. So the best possible accuracy is 1 - difficulty * (1 - 1 / n_classes), on every split to within
one sequence, and at difficulty 1 it is chance. How a sequence of `length` tokens below `vocabulary` shows class c:

motif  Each class has one motif of three tokens of the lower half of the vocabulary. Motif c stands at a random place in
       a uniformly random background in which no motif occurs.
order  The first m tokens of the vocabulary are markers, m the least number with m! >= n_classes. Each occurs once, at
       random places, and reading them from left to right gives the c-th permutation in lexicographic order. The
       background is uniform over the other tokens.
match  The first n_classes tokens are distinct keys, drawn without replacement. The last token repeats the key at
       position c. What lies between is uniform over the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice, permutations
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import StudyError, TextTask
from qsgd_ray.models.transformer import TransformerClassifier, quantum_classifier
from qsgd_ray.optimizer.schedules import CONSTANT_RATE
from qsgd_ray.outcome import Evaluation, Work
from qsgd_ray.random_keys import named_entropy

Tokens = NDArray[np.int64]
MOTIF_LENGTH = 3
# The memory of a pass is bounded; beyond a few hundred sequences a larger batch is no faster.
EVALUATION_BATCH = 512


class Batch(NamedTuple):
    """`tokens` (batch, length) and `labels` (batch), both int64 on the workload's device."""

    tokens: Tensor
    labels: Tensor


def motifs(settings: TextTask) -> Tokens:
    """The motif of each class (n_classes, 3): the same for every split of a data seed."""
    half = settings.vocabulary // 2
    rng = np.random.default_rng(named_entropy("motifs", settings.data_seed))
    codes = rng.choice(half**MOTIF_LENGTH, size=settings.n_classes, replace=False)
    return np.stack(np.unravel_index(codes, (half,) * MOTIF_LENGTH), axis=1)


def class_orders(n_classes: int) -> Tokens:
    """The order of the markers in each class (n_classes, m)."""
    n_markers = next(m for m in range(2, n_classes + 2) if math.factorial(m) >= n_classes)
    return np.array(list(islice(permutations(range(n_markers)), n_classes)))


def _motif(settings: TextTask, shown: Tokens, rng: np.random.Generator) -> Tokens:
    n, half = len(shown), settings.vocabulary // 2
    known = motifs(settings)
    tokens = rng.integers(settings.vocabulary, size=(n, settings.length))
    start = rng.integers(settings.length - MOTIF_LENGTH + 1, size=n)
    planted = start[:, None] + np.arange(MOTIF_LENGTH)
    np.put_along_axis(tokens, planted, known[shown], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, MOTIF_LENGTH, axis=1)
    row, place = np.nonzero((windows[:, :, None] == known).all(-1).any(-1))
    stray = place != start[row]
    row, place = row[stray], place[stray]
    # A motif elsewhere loses its end that lies outside the planted one, to a token that is in no motif.
    place = np.where(place < start[row], place, place + MOTIF_LENGTH - 1)
    tokens[row, place] = rng.integers(half, settings.vocabulary, size=len(row))
    return tokens


def _order(settings: TextTask, shown: Tokens, rng: np.random.Generator) -> Tokens:
    orders = class_orders(settings.n_classes)
    n, n_markers = len(shown), orders.shape[1]
    tokens = rng.integers(n_markers, settings.vocabulary, size=(n, settings.length))
    places = rng.permuted(np.tile(np.arange(settings.length), (n, 1)), axis=1)[:, :n_markers]
    np.put_along_axis(tokens, np.sort(places, axis=1), orders[shown], axis=1)
    return tokens


def _match(settings: TextTask, shown: Tokens, rng: np.random.Generator) -> Tokens:
    n = len(shown)
    tokens = rng.integers(settings.vocabulary, size=(n, settings.length))
    keys = rng.permuted(np.tile(np.arange(settings.vocabulary), (n, 1)), axis=1)[:, : settings.n_classes]
    tokens[:, : settings.n_classes] = keys
    tokens[:, -1] = keys[np.arange(n), shown]
    return tokens


FAMILIES = {"motif": _motif, "order": _order, "match": _match}


def make_split(settings: TextTask, split: Literal["train", "validation", "test"]) -> tuple[Tokens, Tokens]:
    """Tokens (n, length) and labels (n): a pure function of the data seed, the split and its own size."""
    n = getattr(settings, f"{split}_size")
    rng = np.random.default_rng(named_entropy("text", settings.data_seed, settings.family, split))
    labels = rng.permutation(np.arange(n) % settings.n_classes)
    n_redrawn = round(settings.difficulty * n)
    shift = np.zeros(n, dtype=np.int64)
    shift[:n_redrawn] = np.arange(n_redrawn) % settings.n_classes
    shown = (labels + rng.permutation(shift)) % settings.n_classes
    return FAMILIES[settings.family](settings, shown, rng), labels


def best_accuracy(settings: TextTask) -> float:
    """The accuracy of the best classifier there can be (derived above)."""
    return 1 - settings.difficulty * (1 - 1 / settings.n_classes)


class TextWorkload:
    """The data of `settings` on `device`, and how to train and judge a model on it (see `Workload`)."""

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
        """A model on the CPU whose weights depend on `seed` alone; no global generator moves.

        With quantum attention, its angles are drawn last: a seed gives the other weights whether there is any or not.
        """
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the generators of the devices too, which are not forked here.
            torch.default_generator.manual_seed(named_entropy("initial weights", seed) % 2**63)
            return _classifier(self.settings)

    def batches(self, seed: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0) -> Iterator[Batch]:
        """This rank's items (r::world_size) of each batch of the epoch; what fills no whole batch waits for another."""
        _check_rank(rank, world_size)
        if world_size > (size := self.settings.batch_size):
            raise StudyError(f"world_size: got {world_size}; allowed: at most batch_size ({size})")
        return self._batches(seed, epoch, rank, world_size, start)

    def _batches(self, seed: int, epoch: int, rank: int, world_size: int, start: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(named_entropy("order of training", seed, epoch) % 2**63)
        order = torch.randperm(self.settings.train_size, generator=generator)
        whole = order[: self.steps_per_epoch * self.settings.batch_size].view(self.steps_per_epoch, -1)
        tokens, labels = self._splits["train"]
        for chosen in whole[start:, rank::world_size].to(self.device):
            yield Batch(tokens[chosen], labels[chosen])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy of the shard, in nats."""
        return F.cross_entropy(model(batch.tokens), batch.labels)

    def backward(
        self,
        model: nn.Module,
        batch: Batch,
        world_size: int = 1,
        backward: Callable[[Tensor], object] = Tensor.backward,
    ) -> Tensor:
        """Adds the gradient of the shard's mean loss, and returns that loss, each times how much larger than the mean
        shard this one is (1 where they are equally large)."""
        loss = self.loss(model, batch) * (len(batch.labels) * world_size / self.settings.batch_size)
        backward(loss)
        return loss.detach()

    def work(self, batch: Batch, world_size: int = 1) -> Work:  # noqa: ARG002
        """Tokens alone: models as small as this are not limited by their arithmetic."""
        return Work(self.settings.batch_size * self.settings.length)

    def evaluate(
        self, model: nn.Module, split: Literal["validation", "test"], rank: int = 0, world_size: int = 1
    ) -> Evaluation:
        """Sums over this rank's share (r::world_size) of a split, in eval mode; the model's mode is put back."""
        _check_rank(rank, world_size)
        if split not in ("validation", "test"):
            raise StudyError(f"split: got {split!r}; allowed: 'validation' or 'test'")
        share = Batch(*(whole[rank::world_size] for whole in self._splits[split]))
        n_calls = math.ceil(math.ceil(len(self._splits[split].labels) / world_size) / EVALUATION_BATCH)
        loss_sum, n_correct, was_training = 0.0, 0, model.training
        model.eval()
        try:
            # Not inference_mode: what is made there can never enter autograd again.
            with torch.no_grad():
                for tokens, labels in zip(*(part.split(EVALUATION_BATCH) for part in share), strict=True):
                    n_calls -= 1
                    logits = model(tokens).double()
                    loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
                    n_correct += int((logits.argmax(dim=1) == labels).sum())
                for _ in range(n_calls):  # a model in shards is called by all ranks, or by none
                    model(self._splits[split].tokens[:1])
        finally:
            model.train(was_training)
        return Evaluation(loss_sum, n_correct, len(share.labels))

    def answers(self, model: nn.Module, rank: int = 0, world_size: int = 1) -> None:
        """There is nothing to generate."""


def _classifier(settings: TextTask) -> TransformerClassifier:
    """The model, drawn from torch's global generator."""
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


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise StudyError(f"rank: got {rank} of world_size {world_size}; allowed: 0 <= rank < world_size")
