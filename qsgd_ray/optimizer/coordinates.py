"""Which coordinates of a model a perturbation touches: the parameters' sizes and a scope in; blocks of coordinates out.

Coordinates are counted through the parameters in their order, each flattened row by row, whoever holds them. A `Blocks`
is a run of segments that, laid end to end, are whole blocks of one width: block b is the coordinates b*width ...
b*width+width-1 of that run, and may span parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Scope = Literal["model", "tensor", "all"]


class Segment(NamedTuple):
    """The coordinates start ... stop-1 of the flattened parameter with this index; `origin`: the first of them, counted
    through the model."""

    parameter: int
    start: int
    stop: int
    origin: int


class Shard(NamedTuple):
    """Who holds a flattened parameter: process r its coordinates bounds[r] ... bounds[r+1]-1. `rank`: this process."""

    bounds: tuple[int, ...]
    rank: int

    @property
    def divided(self) -> bool:
        """Is it held in parts?"""
        return len(self.bounds) > 2

    @property
    def size(self) -> int:
        """Of the whole parameter."""
        return self.bounds[-1]

    @property
    def start(self) -> int:
        return self.bounds[self.rank]

    @property
    def stop(self) -> int:
        return self.bounds[self.rank + 1]


class Part(NamedTuple):
    """What one process holds of a segment: start ... stop-1 of its own memory of the parameter; `place`: where the
    first of them stands in the run of blocks."""

    parameter: int
    start: int
    stop: int
    place: int


@dataclass(frozen=True)
class Blocks:
    """Blocks of one width, as the segments that make them up end to end."""

    width: int
    segments: tuple[Segment, ...]

    @property
    def sizes(self) -> list[int]:
        return [stop - start for _, start, stop, _ in self.segments]

    @property
    def n_coordinates(self) -> int:
        return sum(self.sizes)

    def __len__(self) -> int:
        return self.n_coordinates // self.width

    def starts(self) -> NDArray[np.int64]:
        """(blocks,): the first coordinate of each block, counted through the model; the block's name."""
        within = [
            np.arange(-(first % self.width) % self.width, size, self.width) + segment.origin
            for segment, size, first in zip(self.segments, self.sizes, self._places(), strict=True)
        ]
        return np.concatenate(within) if within else np.zeros(0, dtype=np.int64)

    def held(self, shards: Sequence[Shard]) -> tuple[Part, ...]:
        """What this process holds of them, in their order."""
        parts = []
        for (index, start, stop, _), place in zip(self.segments, self._places(), strict=True):
            own = shards[index]
            low, high = max(start, own.start), min(stop, own.stop)
            if low < high:
                parts.append(Part(index, low - own.start, high - own.start, place + low - start))
        return tuple(parts)

    def _places(self) -> list[int]:
        """Where each segment starts, end to end."""
        return [0, *np.cumsum(self.sizes).tolist()[:-1]]


def coordinates(sizes: Sequence[int], scope: Scope, n_qubits: int) -> tuple[Blocks, ...]:
    """The blocks of `scope`, grouped by width, widest first; empty parameters have none.

    `model`: the first n_qubits coordinates of the model. `tensor`: the first n_qubits of each parameter. `all`: every
    coordinate, in blocks of n_qubits; the last may be narrower.
    """
    firsts = origins(sizes)
    if scope == "tensor":
        widths = [min(n_qubits, size) for size in sizes]
        return tuple(
            Blocks(
                width,
                tuple(Segment(index, 0, width, firsts[index]) for index, own in enumerate(widths) if own == width),
            )
            for width in sorted(set(widths) - {0}, reverse=True)
        )
    total = firsts[-1]
    if scope == "model":
        width = min(n_qubits, total)
        return (Blocks(width, _run(firsts, 0, width)),) if width else ()
    whole = total - total % n_qubits
    return tuple(
        Blocks(width, _run(firsts, start, stop))
        for width, start, stop in ((n_qubits, 0, whole), (total - whole, whole, total))
        if stop > start
    )


def cut_blocks(shards: Sequence[Shard], n_qubits: int) -> tuple[Blocks, ...]:
    """Those blocks of scope `all` that no process holds within one parameter, and the narrower one at the end."""
    firsts = origins([shard.size for shard in shards])
    total = firsts[-1]
    whole = total - total % n_qubits
    borders = {first + bound for first, shard in zip(firsts, shards, strict=False) for bound in shard.bounds}
    cut = sorted({border // n_qubits for border in borders if border % n_qubits and border < whole})
    runs = [segment for block in cut for segment in _run(firsts, block * n_qubits, (block + 1) * n_qubits)]
    narrow = _run(firsts, whole, total)
    return tuple(
        Blocks(width, tuple(segments)) for width, segments in ((n_qubits, runs), (total - whole, narrow)) if segments
    )


def origins(sizes: Sequence[int]) -> list[int]:
    """Where each parameter starts, counted through the model; and, last, where the model ends."""
    return [0, *np.cumsum(sizes, dtype=np.int64).tolist()]


def _run(firsts: Sequence[int], start: int, stop: int) -> tuple[Segment, ...]:
    """The model's coordinates start ... stop-1 as segments."""
    segments = []
    index = int(np.searchsorted(firsts, start, side="right")) - 1
    while start < stop:
        end = min(stop, firsts[index + 1])
        if start < end:
            segments.append(Segment(index, start - firsts[index], end - firsts[index], start))
        start, index = end, index + 1
    return tuple(segments)
