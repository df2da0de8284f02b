"""Choose the coordinates of a model that a perturbation touches, as blocks that one circuit each answers.

The coordinates of a model are numbered through its parameters in their order, each flattened row by row, whichever
process holds them. A `Blocks` is a list of segments that, laid end to end, make whole blocks of one width: block b has
the coordinates b * width ... (b + 1) * width - 1 of that row, and may span parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.config import Scope


class _Segment(NamedTuple):
    """Coordinates of one parameter that lie side by side.

    Attributes:
        parameter: index of the parameter.
        start: first coordinate, counted within the flattened parameter.
        stop: one past the last.
        origin: number of the first coordinate within the model.
    """

    parameter: int
    start: int
    stop: int
    origin: int


class Shard(NamedTuple):
    """The processes' shares of a flattened parameter.

    Attributes:
        bounds: process r holds the coordinates bounds[r] ... bounds[r + 1] - 1; two bounds: every process holds all.
        rank: this process, as an index into `bounds`.
    """

    bounds: tuple[int, ...]
    rank: int

    @property
    def divided(self) -> bool:
        """True where processes hold different parts."""
        return len(self.bounds) > 2

    @property
    def size(self) -> int:
        """Number of coordinates of the whole parameter."""
        return self.bounds[-1]

    @property
    def start(self) -> int:
        """First coordinate that this process holds."""
        return self.bounds[self.rank]

    @property
    def stop(self) -> int:
        """One past the last coordinate that this process holds."""
        return self.bounds[self.rank + 1]


class Part(NamedTuple):
    """The share of a segment that one process holds.

    Attributes:
        parameter: index of the parameter.
        start: first coordinate, counted within this process's memory of the parameter.
        stop: one past the last.
        offset: position of the first coordinate in the row of blocks.
    """

    parameter: int
    start: int
    stop: int
    offset: int


@dataclass(frozen=True)
class Blocks:
    """Blocks of one width, as the segments that make them up end to end."""

    width: int
    segments: tuple[_Segment, ...]

    @property
    def sizes(self) -> list[int]:
        """Number of coordinates of each segment."""
        return [stop - start for _, start, stop, _ in self.segments]

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates of all blocks."""
        return sum(self.sizes)

    def __len__(self) -> int:
        """Return the number of blocks."""
        return self.n_coordinates // self.width

    def starts(self) -> NDArray[np.int64]:
        """Return the number, within the model, of each block's first coordinate: (blocks,). It names the block."""
        within = [
            np.arange(-(first % self.width) % self.width, size, self.width) + segment.origin
            for segment, size, first in zip(self.segments, self.sizes, self._offsets(), strict=True)
        ]
        return np.concatenate(within) if within else np.zeros(0, dtype=np.int64)

    def local_parts(self, shards: Sequence[Shard]) -> tuple[Part, ...]:
        """Return what this process holds of the blocks, in their order."""
        parts = []
        for (index, start, stop, _), offset in zip(self.segments, self._offsets(), strict=True):
            shard = shards[index]
            low, high = max(start, shard.start), min(stop, shard.stop)
            if low < high:
                parts.append(Part(index, low - shard.start, high - shard.start, offset + low - start))
        return tuple(parts)

    def _offsets(self) -> list[int]:
        """Return the position of each segment's first coordinate in the row of blocks."""
        return [0, *np.cumsum(self.sizes).tolist()[:-1]]


def blocks_of(sizes: Sequence[int], scope: Scope, n_qubits: int) -> tuple[Blocks, ...]:
    """Return the blocks of a scope, those of one width together, widest first; empty parameters have none.

    Args:
        sizes: number of coordinates of each parameter, in the order of the model.
        scope: "model", the first `n_qubits` coordinates of the model; "tensor", the first `n_qubits` of each parameter;
            "all", every coordinate in blocks of `n_qubits`, of which the last may be narrower.
        n_qubits: width of a block, >= 1; one circuit of as many qubits answers it.
    """
    firsts = origins(sizes)
    if scope == "tensor":
        widths = [min(n_qubits, size) for size in sizes]
        return tuple(
            Blocks(
                width,
                tuple(_Segment(index, 0, width, firsts[index]) for index, other in enumerate(widths) if other == width),
            )
            for width in sorted(set(widths) - {0}, reverse=True)
        )
    total = firsts[-1]
    if scope == "model":
        width = min(n_qubits, total)
        return (Blocks(width, _segments(firsts, 0, width)),) if width else ()
    whole = total - total % n_qubits
    return tuple(
        Blocks(width, _segments(firsts, start, stop))
        for width, start, stop in ((n_qubits, 0, whole), (total - whole, whole, total))
        if stop > start
    )


def count_blocks(sizes: Sequence[int], scope: Scope, n_qubits: int) -> int:
    """Return how many blocks a scope has: the number of circuits that one step takes with a circuit for a source.

    Args:
        sizes: number of coordinates of each parameter, in the order of the model.
        scope: "model", "tensor" or "all", as in `config.Perturbation`.
        n_qubits: width of a block, >= 1.

    Example:
        >>> from qsgd_ray.optimizer import count_blocks
        >>> [count_blocks([100, 10], scope, 4) for scope in ("model", "tensor", "all")]
        [1, 2, 28]
    """
    return sum(map(len, blocks_of(sizes, scope, n_qubits)))


def cut_blocks(shards: Sequence[Shard], n_qubits: int) -> tuple[Blocks, ...]:
    """Return the blocks of scope `all` that no process holds within one parameter, and the narrower one at the end."""
    firsts = origins([shard.size for shard in shards])
    total = firsts[-1]
    whole = total - total % n_qubits
    borders = {first + bound for first, shard in zip(firsts, shards, strict=False) for bound in shard.bounds}
    cut = sorted({border // n_qubits for border in borders if border % n_qubits and border < whole})
    wide = [segment for block in cut for segment in _segments(firsts, block * n_qubits, (block + 1) * n_qubits)]
    narrow = _segments(firsts, whole, total)
    return tuple(
        Blocks(width, tuple(segments)) for width, segments in ((n_qubits, wide), (total - whole, narrow)) if segments
    )


def origins(sizes: Sequence[int]) -> list[int]:
    """Return the number of each parameter's first coordinate within the model and, last, the size of the model."""
    return [0, *np.cumsum(sizes, dtype=np.int64).tolist()]


def _segments(firsts: Sequence[int], start: int, stop: int) -> tuple[_Segment, ...]:
    """Return the model's coordinates start ... stop - 1 as segments."""
    segments = []
    index = int(np.searchsorted(firsts, start, side="right")) - 1
    while start < stop:
        end = min(stop, firsts[index + 1])
        if start < end:
            segments.append(_Segment(index, start - firsts[index], end - firsts[index], start))
        start, index = end, index + 1
    return tuple(segments)
