"""Which coordinates of a model a perturbation touches: parameters and a scope in; blocks to read and to add to out.

Coordinates are counted through the parameters in their order, each flattened row by row. A `Blocks` is a run of
segments that, laid end to end, are whole blocks of one width: block b is the coordinates b*width ... b*width+width-1 of
that run, and may span parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Scope = Literal["model", "tensor", "all"]


class Segment(NamedTuple):
    """The coordinates start ... stop-1 of the flattened parameter with this index; `origin`: the first of them, counted
    through the model."""

    parameter: int
    start: int
    stop: int
    origin: int


@dataclass(frozen=True)
class Blocks:
    """Blocks of one width, as the segments that make them up end to end."""

    width: int
    segments: tuple[Segment, ...]

    @property
    def sizes(self) -> list[int]:
        return [stop - start for _, start, stop, _ in self.segments]

    def __len__(self) -> int:
        return sum(self.sizes) // self.width

    def starts(self) -> NDArray[np.int64]:
        """(blocks,): the first coordinate of each block, counted through the model; the block's name."""
        within = [
            np.arange(-(first % self.width) % self.width, size, self.width) + segment.origin
            for segment, size, first in zip(self.segments, self.sizes, self._firsts(), strict=True)
        ]
        return np.concatenate(within) if within else np.zeros(0, dtype=np.int64)

    def _firsts(self) -> list[int]:
        """Where each segment starts, end to end."""
        return [0, *np.cumsum(self.sizes).tolist()[:-1]]

    def chunks(self, coordinates: int) -> Iterator[Blocks]:
        """These blocks, in order, in parts of about so many coordinates: whole blocks, one at least."""
        most = max(1, coordinates // self.width) * self.width
        own: list[Segment] = []
        room = most
        for index, start, stop, origin in self.segments:
            while start < stop:
                end = min(stop, start + room)
                own.append(Segment(index, start, end, origin))
                room -= end - start
                origin += end - start
                start = end
                if room == 0:
                    yield Blocks(self.width, tuple(own))
                    own, room = [], most
        if own:
            yield Blocks(self.width, tuple(own))

    def gather(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """The blocks of `tensors`, one a parameter: (blocks, width), a copy on their device. Zeros where None.

        Tensors of several dtypes come out in the widest. All None: zeros in float64 on the CPU.
        """
        like = next((tensors[index] for index, *_ in self.segments if tensors[index] is not None), None)
        if like is None:
            return torch.zeros(len(self), self.width, dtype=torch.float64)
        pieces = []
        for index, start, stop, _ in self.segments:
            tensor = tensors[index]
            if tensor is None:
                pieces.append(like.new_zeros(stop - start))
            elif tensor.is_contiguous():  # one call, not two: of 26 tensors in 46 microseconds, not 74
                pieces.append(tensor.as_strided((stop - start,), (1,), tensor.storage_offset() + start))
            else:
                pieces.append(tensor.reshape(-1)[start:stop])
        return torch.cat(pieces).view(-1, self.width)

    def split(self, values_bw: Tensor) -> list[Tensor]:
        """`values_bw` (blocks, width) cut into one flat piece a segment, in the order of `segments`."""
        return list(values_bw.reshape(-1).split(self.sizes))

    def views(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """One flat view a segment into the parameters' own memory, in the order of `segments`."""
        return [parameters[index].view(-1)[start:stop] for index, start, stop, _ in self.segments]


def coordinates(parameters: Sequence[Tensor], scope: Scope, n_qubits: int) -> tuple[Blocks, ...]:
    """The blocks of `scope`, grouped by width, widest first; empty parameters have none.

    `model`: the first n_qubits coordinates of the model. `tensor`: the first n_qubits of each parameter. `all`: every
    coordinate, in blocks of n_qubits; the last may be narrower. ValueError in one line: a parameter that is sharded, is
    not contiguous, is complex, or lies on another device than the first.
    """
    for index, parameter in enumerate(parameters):
        _check(index, parameter, parameters[0])
    sizes = [parameter.numel() for parameter in parameters]
    if scope == "tensor":
        widths = [min(n_qubits, size) for size in sizes]
        origins = [0, *np.cumsum(sizes).tolist()]
        return tuple(
            Blocks(
                width,
                tuple(Segment(index, 0, width, origins[index]) for index, own in enumerate(widths) if own == width),
            )
            for width in sorted(set(widths) - {0}, reverse=True)
        )
    total = sum(sizes)
    if scope == "model":
        width = min(n_qubits, total)
        return (Blocks(width, _run(sizes, 0, width)),) if width else ()
    whole = total - total % n_qubits
    return tuple(
        Blocks(width, _run(sizes, start, stop))
        for width, start, stop in ((n_qubits, 0, whole), (total - whole, whole, total))
        if stop > start
    )


def _run(sizes: Sequence[int], start: int, stop: int) -> tuple[Segment, ...]:
    """The model's coordinates start ... stop-1 as segments."""
    segments, first = [], 0
    for index, size in enumerate(sizes):
        low, high = max(start - first, 0), min(stop - first, size)
        if low < high:
            segments.append(Segment(index, low, high, first + low))
        first += size
    return tuple(segments)


def _check(index: int, parameter: Tensor, first: Tensor) -> None:
    where = f"parameter {index} of shape {tuple(parameter.shape)}"
    if hasattr(parameter, "to_local"):  # its memory holds other coordinates than its shape says
        raise ValueError(f"{where}: got a DTensor, sharded by FSDP2; allowed: whole parameters (DDP, or one process)")
    if not parameter.is_contiguous():
        raise ValueError(f"{where}: got strides {parameter.stride()}; allowed: contiguous parameters")
    if parameter.is_complex():
        raise ValueError(f"{where}: got {parameter.dtype}; allowed: real parameters")
    if parameter.device != first.device:
        raise ValueError(f"{where}: got device {parameter.device}; allowed: one device for all, here {first.device}")
