"""Read and write the coordinates of blocks, of which this process may hold a part only.

A perturbation needs a few coordinates that other processes hold. They are put together by one sum over the processes:
of the bits, each from the process that holds it and zeros from the others, so that nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from qsgd_ray.optimizer._blocks import Blocks, Part, Shard
from qsgd_ray.optimizer._gather import NativeSlices, Slices, SliceTable, TorchSlices, all_native, gather_kernels
from qsgd_ray.optimizer._shards import ShardGroup


class LocalBlocks:
    """Blocks of coordinates, those of one width together, and the parts of them that this process holds.

    All of them are read and written together, whatever their width.

    Attributes:
        blocks: the whole blocks, a `Blocks` for each width.
        parts: what this process holds, in the order of the blocks.
        sizes: number of coordinates of each part.
        reports: for each part, True where this process reports its norms: the first process does so for parts that
            every process holds.
        thetas: the parts' slices of the parameters' memory.
    """

    def __init__(
        self,
        blocks: Sequence[Blocks],
        shards: Sequence[Shard],
        memory: Sequence[Tensor],
        processes: ShardGroup,
        native: bool = False,
    ) -> None:
        """Find the parts of `blocks` in `memory`, this process's part of each parameter, flat.

        `native`: read and write them in a C++ loop, where that can be compiled.
        """
        self.blocks = tuple(blocks)
        self.parts = tuple(_local_parts(self.blocks, shards))
        segments = [segment for same_width in self.blocks for segment in same_width.segments]
        self.sizes = [part.stop - part.start for part in self.parts]
        self._widths = [same_width.width for same_width in self.blocks]
        self._lengths = [same_width.n_coordinates for same_width in self.blocks]
        self.reports = [shards[part.parameter].divided or processes.rank == 0 for part in self.parts]
        divided = any(shards[segment.parameter].divided for segment in segments)
        self._processes = processes if divided else ShardGroup(None, processes.rank)
        self._one_dtype = len({memory[segment.parameter].dtype for segment in segments}) == 1
        self._like = memory[0].new_zeros(0, dtype=_widest([memory[segment.parameter] for segment in segments]))
        self._kernels = gather_kernels() if native else None
        self._table = SliceTable.of(self.parts)
        self.thetas = self.slices(memory)
        # Positions of the parts' coordinates in the row of blocks, and which of them this process contributes; None
        # where it holds all of the blocks.
        self._positions = self._contributed = None
        if self._processes.group is not None:
            none = torch.zeros(0, dtype=torch.int64, device=self._like.device)
            positions = [
                torch.arange(part.offset, part.offset + size) for part, size in zip(self.parts, self.sizes, strict=True)
            ]
            reported = [torch.full((size,), reports) for size, reports in zip(self.sizes, self.reports, strict=True)]
            self._positions = torch.cat([none, *(some.to(none.device) for some in positions)])
            self._contributed = torch.cat([none, *reported]).nonzero().flatten().to(none.device)

    def slices(self, tensors: Sequence[Tensor | None], native: bool = False) -> Slices:
        """Return the parts' slices of other tensors: gradients or moments, this process's part of each parameter.

        `native`: all of them are known to be such as `all_native` describes.
        """
        if self._kernels is not None and (native or all_native([tensors[index] for index in self._table.parameters])):
            return NativeSlices(self._kernels, self._table, tensors)
        return TorchSlices(self.parts, tensors, self._like)

    def theta(self) -> Tensor:
        """Return the coordinates of the whole blocks, end to end, a copy; every process of the model has to call."""
        parts = self.thetas.gather()
        if self._positions is None:
            return parts
        wide, bits = (torch.float64, torch.int64) if self._like.dtype == torch.float64 else (torch.float32, torch.int32)
        flat = self._like.new_zeros(sum(self._lengths), dtype=wide)
        flat[self._positions[self._contributed]] = parts[self._contributed].to(wide)
        self._processes.sum_(flat.view(bits))
        return flat.to(self._like.dtype)

    def changed_theta(self, last: Tensor | None) -> Tensor | None:
        """Return `theta()`, or None where it is still `last`."""
        if last is not None and self._positions is None and self.thetas.equal(last):
            return None
        theta = self.theta()
        return None if last is not None and self._positions is not None and torch.equal(theta, last) else theta

    def by_width(self, flat: Tensor) -> list[Tensor]:
        """Return views of values of the whole blocks, one of shape (blocks, width) for each width."""
        values = [flat] if len(self._lengths) == 1 else flat.split(self._lengths)
        return [some.view(-1, width) for some, width in zip(values, self._widths, strict=True)]

    def rounded(self, q: Tensor) -> Tensor:
        """Round to the parameters' dtype, where they have one in common; else each part is rounded when it is added."""
        return q.to(self._like.dtype) if self._one_dtype else q

    def local(self, flat: Tensor) -> Tensor:
        """Return, of values of the whole blocks end to end, those of the parts that this process holds."""
        return flat if self._positions is None else flat[self._positions.to(flat.device)]


def _local_parts(blocks: Sequence[Blocks], shards: Sequence[Shard]) -> Iterator[Part]:
    before = 0
    for same_width in blocks:
        yield from (part._replace(offset=part.offset + before) for part in same_width.local_parts(shards))
        before += same_width.n_coordinates


def _widest(tensors: Sequence[Tensor]) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
