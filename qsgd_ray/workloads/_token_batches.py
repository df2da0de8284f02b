"""Batches of examples: token ids of any length come in; padded, perhaps packed batches go out, step by step.

The order of a training is a pure function of (seed, epoch): any number of workers sees the same steps, and a training
continues at any of them. Rank r of w takes items r::w of a step, as workloads/protocol.py says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from qsgd_ray.config import StudyError
from qsgd_ray.random_keys import named_seed
from qsgd_ray.workloads._chat import IGNORED, Example
from qsgd_ray.workloads.protocol import check_rank


class TokenBatch(NamedTuple):
    """Sequences padded on the right to the longest; b sequences of t tokens.

    Attributes:
        input_ids: int64, shape (b, t).
        attention_mask: int64, shape (b, t), 1 for a token and 0 for padding. Of packed sequences: bool, shape
            (b, 1, t, t), True where the query (row) sees the key, for torch's scaled_dot_product_attention.
        position_ids: int64, shape (b, t); each example of a packed sequence starts at 0.
        labels: int64, shape (b, t); -100: the loss does not count.
        predicting: int64, shape (n,): positions whose logits predict a token that counts in any of the sequences; no
            other logits are needed.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    predicting: Tensor

    def to(self, device: str | torch.device) -> TokenBatch:
        """Return the batch on a device."""
        return TokenBatch(*(part.to(device) for part in self))


class TokenStep(NamedTuple):
    """One rank's part of a step of the optimizer.

    Attributes:
        micro_batches: the part, in forward passes.
        n_tokens: tokens that count in the loss, over the parts of all ranks.
        lengths: tokens of each example, over the parts of all ranks.
    """

    micro_batches: tuple[TokenBatch, ...]
    n_tokens: int
    lengths: tuple[int, ...]


class TokenBatches:
    """Examples in steps of `batch_size` sequences over all ranks; a rest that fills no step is left out of the epoch.

    Args:
        examples: examples, in the order in which they are packed.
        batch_size: sequences of a step, over all ranks.
        pad_id: token that pads.
        micro_batch_size: most sequences of a forward pass; None: a rank's whole part.
        pack_to: tokens of a sequence, which holds as many of the next examples as fit; None: one example a sequence.
        device: where batches go.

    Raises:
        StudyError: one line: no example, or fewer sequences than `batch_size`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        batch_size: int,
        pad_id: int,
        micro_batch_size: int | None = None,
        pack_to: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if micro_batch_size is not None and micro_batch_size < 1:
            raise StudyError(f"micro_batch_size: got {micro_batch_size}; allowed: a whole number >= 1, or None")
        self.sequences = [[example] for example in examples] if pack_to is None else _pack(examples, pack_to)
        if not 1 <= batch_size <= len(self.sequences):
            raise StudyError(
                f"batch_size: got {batch_size}; allowed: 1 to {len(self.sequences)}, the sequences there are"
            )
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.steps_per_epoch = len(self.sequences) // batch_size
        self._packed, self._pad_id, self._device = pack_to is not None, pad_id, device
        self._n_tokens = [_n_tokens(sequence) for sequence in self.sequences]

    def steps(self, seed: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0) -> Iterator[TokenStep]:
        """Yield this rank's part of each step of the epoch, from step `start` (from 0) on.

        Raises:
            StudyError: no such rank or step.
        """
        check_rank(rank, world_size, self.batch_size)
        if not 0 <= start <= self.steps_per_epoch:
            raise StudyError(f"start: got {start}; allowed: 0 to {self.steps_per_epoch}, the steps of an epoch")
        return self._steps(seed, epoch, rank, world_size, start)

    def _steps(self, seed: int, epoch: int, rank: int, world_size: int, start: int) -> Iterator[TokenStep]:
        generator = torch.Generator().manual_seed(named_seed("order of training", seed, epoch))
        order = torch.randperm(len(self.sequences), generator=generator).tolist()
        for step in range(start, self.steps_per_epoch):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            batches = self._batches(chosen, rank, world_size, self.micro_batch_size or self.batch_size)
            lengths = [len(example.ids) for index in chosen for example in self.sequences[index]]
            yield TokenStep(tuple(batches), sum(self._n_tokens[index] for index in chosen), tuple(lengths))

    def share(self, rank: int = 0, world_size: int = 1, batch_size: int = 8) -> Iterator[TokenBatch]:
        """Yield this rank's sequences (rank::world_size) once, in their order, to measure a loss on.

        All ranks get equally many batches; a rank with no sequence left gets one in which no token counts.
        """
        check_rank(rank, world_size)
        return self._batches(range(len(self.sequences)), rank, world_size, batch_size)

    def _batches(self, indices: Sequence[int], rank: int, world_size: int, size: int) -> Iterator[TokenBatch]:
        """Yield a rank's part of these sequences in batches of at most `size`; every rank yields as many."""
        rest = iter(indices[rank::world_size])
        for _ in range(0, len(indices[::world_size]), size):
            sequences = [self.sequences[index] for index in islice(rest, size)]
            batch = _collate(sequences or [self.sequences[0]], pad_id=self._pad_id, packed=self._packed)
            if not sequences:
                batch = batch._replace(labels=torch.full_like(batch.labels, IGNORED))
            yield batch.to(self._device)


def _pack(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """Put examples into sequences in their order, as many as fit; StudyError: one of them alone does not."""
    sequences: list[list[Example]] = []
    room = 0
    for example in examples:
        if (length := len(example.ids)) > tokens:
            raise StudyError(f"pack_to: got {tokens}; allowed: at least {length}, the tokens of an example")
        if length > room:
            sequences.append([])
            room = tokens
        sequences[-1].append(example)
        room -= length
    return sequences


def _collate(sequences: Sequence[Sequence[Example]], *, pad_id: int, packed: bool) -> TokenBatch:
    """Make a batch of sequences of one or more examples; not `packed`: of one example each."""
    size = max(sum(len(example.ids) for example in sequence) for sequence in sequences)
    shape = (len(sequences), size)
    ids, labels = torch.full(shape, pad_id), torch.full(shape, IGNORED)
    positions, owners = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -1)
    for row, sequence in enumerate(sequences):
        at = 0
        for owner, example in enumerate(sequence):
            here = slice(at, at := at + len(example.ids))
            ids[row, here], labels[row, here], owners[row, here] = example.ids, example.labels, owner
            positions[row, here] = torch.arange(len(example.ids))
    if packed:
        # Padding is one more owner: with a row that sees nothing, attention would be NaN there.
        causal = torch.ones(size, size, dtype=torch.bool).tril()
        mask = (owners[:, :, None] == owners[:, None, :])[:, None] & causal
    else:
        mask = (owners >= 0).long()
    return TokenBatch(ids, mask, positions, labels, (labels[:, 1:] != IGNORED).any(dim=0).nonzero()[:, 0])


def _n_tokens(sequence: Sequence[Example]) -> int:
    return sum(int((example.labels[1:] != IGNORED).sum()) for example in sequence)
