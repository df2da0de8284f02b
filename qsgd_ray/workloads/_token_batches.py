"""Examples as batches: token ids of any length come in; padded, perhaps packed batches go out, step by step.

The order of a training is a pure function of (seed, epoch): any number of workers sees the same steps, and a training
goes on at any of them. The ranks of w workers take items r::w of a step, as in workloads/text.py.
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
    """Some sequences, padded on the right to the longest.

    `input_ids`, `position_ids`, `labels` (-100: no loss): (batch, tokens) int64. `attention_mask`: (batch, tokens), 1
    for a token and 0 for padding; of packed sequences (batch, 1, tokens, tokens) bool, True where the query (row) sees
    the key, for attention by torch's scaled_dot_product_attention. `predicting` (n,): the places whose logits predict a
    token that counts in any of the sequences; no others are needed.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    predicting: Tensor

    def to(self, device: str | torch.device) -> TokenBatch:
        return TokenBatch(*(part.to(device) for part in self))


class TokenStep(NamedTuple):
    """One rank's part of an optimizer's step; of the parts of all ranks, the number of tokens that count in the loss
    and the lengths of all examples."""

    micro_batches: tuple[TokenBatch, ...]
    n_tokens: int
    lengths: tuple[int, ...]


class TokenBatches:
    """Steps of `batch_size` sequences each, over all ranks; what fills no whole step waits for another epoch.

    `micro_batch_size`: a rank takes at most so many sequences in one forward pass; None: all of its part. `pack_to`:
    sequences are made of the next examples that fit into so many tokens; None: of one example each. StudyError, one
    line: no example, or fewer sequences than batch_size.
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
        self.sequences = [[one] for one in examples] if pack_to is None else pack(examples, pack_to)
        if not 1 <= batch_size <= len(self.sequences):
            raise StudyError(
                f"batch_size: got {batch_size}; allowed: 1 to {len(self.sequences)}, the sequences there are"
            )
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.steps_per_epoch = len(self.sequences) // batch_size
        self._packed, self._pad_id, self._device = pack_to is not None, pad_id, device
        self._n_tokens = [_n_tokens(sequence) for sequence in self.sequences]

    def steps(self, seed: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0) -> Iterator[TokenStep]:
        """This rank's part of each step of the epoch, from step `start` (from 0) on. StudyError: no such part."""
        check_rank(rank, world_size)
        if world_size > self.batch_size:
            raise StudyError(f"world_size: got {world_size}; allowed: at most batch_size ({self.batch_size})")
        if not 0 <= start <= self.steps_per_epoch:
            raise StudyError(f"start: got {start}; allowed: 0 to {self.steps_per_epoch}, the steps of an epoch")
        return self._steps(seed, epoch, rank, world_size, start)

    def _steps(self, seed: int, epoch: int, rank: int, world_size: int, start: int) -> Iterator[TokenStep]:
        generator = torch.Generator().manual_seed(named_seed("order of training", seed, epoch))
        order = torch.randperm(len(self.sequences), generator=generator).tolist()
        for step in range(start, self.steps_per_epoch):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            batches = self._batches(chosen, rank, world_size, self.micro_batch_size or self.batch_size)
            lengths = [len(example.ids) for place in chosen for example in self.sequences[place]]
            yield TokenStep(tuple(batches), sum(self._n_tokens[place] for place in chosen), tuple(lengths))

    def share(self, rank: int = 0, world_size: int = 1, batch_size: int = 8) -> Iterator[TokenBatch]:
        """This rank's sequences (r::world_size) once, in their order, to measure a loss on.

        All ranks get equally many batches; where there is nothing left for one, none of its tokens counts.
        """
        check_rank(rank, world_size)
        return self._batches(range(len(self.sequences)), rank, world_size, batch_size)

    def _batches(self, places: Sequence[int], rank: int, world_size: int, size: int) -> Iterator[TokenBatch]:
        """A rank's part of these places, in batches of at most `size`; as many batches as rank 0 has, who has most."""
        rest = iter(places[rank::world_size])
        for _ in range(0, len(places[::world_size]), size):
            sequences = [self.sequences[place] for place in islice(rest, size)]
            batch = collate(sequences or [self.sequences[0]], pad_id=self._pad_id, packed=self._packed)
            if not sequences:
                batch = batch._replace(labels=torch.full_like(batch.labels, IGNORED))
            yield batch.to(self._device)


def pack(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """The examples in their order, as many in a sequence as fit. StudyError: one of them alone does not."""
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


def collate(sequences: Sequence[Sequence[Example]], *, pad_id: int, packed: bool) -> TokenBatch:
    """Sequences of one or more examples as a batch. Not `packed`: each is of one example."""
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
