"""Parameters of which a process may hold a part only (FSDP2's DTensors): where it lies; values of whole blocks out.

What a perturbation needs of the others' parts is a few coordinates: those are put together by one sum over the
processes, of the bits, each from whoever holds it and zeros from the others, so that not one is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from qsgd_ray.optimizer._gather import PLAIN, NativePlaces, Places, TorchPlaces, Where, fit_native, native_kernels
from qsgd_ray.optimizer.coordinates import Blocks, Part, Shard


class Ranks(NamedTuple):
    """The processes that hold a model together, and which of them this is; `group` None: it holds all of it."""

    group: dist.ProcessGroup | None = None
    rank: int = 0

    def sum_(self, values: Tensor) -> Tensor:
        """Summed over the processes, in place."""
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
        return values


def own(tensor: Tensor) -> Tensor:
    """What of a tensor lies in this process: of a DTensor its local part, in the same memory."""
    if (
        type(tensor) in PLAIN
    ):  # asked some hundred times a step: to look for an attribute that is not there takes longer
        return tensor
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


@contextmanager
def gradients_like_parameters(parameters: Sequence[Any]) -> Iterator[None]:
    """Within it, gradients of DTensors that are laid out otherwise than their parameters (partial sums, other shards)
    are laid out alike, as torch's optimizers do for each operation; afterwards they are those that came."""
    came: dict[Any, Any] = {}
    for parameter in parameters:
        if type(parameter) in PLAIN or not hasattr(parameter, "to_local") or parameter.grad is None:
            continue
        gradient = parameter.grad
        if gradient.placements != parameter.placements:
            came[parameter] = gradient
            parameter.grad = gradient.redistribute(parameter.device_mesh, parameter.placements)
    try:
        yield
    finally:
        for parameter, gradient in came.items():
            parameter.grad = gradient


def is_divided(parameter: Any) -> bool:
    """Do several processes hold a part of it each?"""
    return hasattr(parameter, "to_local") and parameter.to_local().numel() < parameter.numel()


def shards_of(parameters: Sequence[Tensor]) -> tuple[list[Shard], Ranks]:
    """Who holds which coordinates of each parameter. Those that are not sharded, every process holds whole.

    ValueError in one line: a parameter that is sharded otherwise than by rows over one dimension of a mesh, or over
    other processes than another one; is not contiguous; is complex; or lies on another device than the first.
    """
    shards, ranks = [], Ranks()
    for index, parameter in enumerate(parameters):
        where = f"parameter {index} of shape {tuple(parameter.shape)}"
        group = _group(parameter, where)
        if group is not None and ranks.group is not None and _members(group) != _members(ranks.group):
            raise ValueError(
                f"{where}: got a shard among processes {_members(group)}; allowed: the same for all, here "
                f"{_members(ranks.group)}"
            )
        shards.append(_shard(parameter, group))
        if group is not None and ranks.group is None:
            ranks = Ranks(group, shards[-1].rank)
        _check(parameter, parameters[0], where)
    return shards, ranks


def _group(parameter: Any, where: str) -> dist.ProcessGroup | None:
    """Of the processes that hold a parameter together, where they are several."""
    if not hasattr(parameter, "to_local"):
        return None
    from torch.distributed.tensor import Shard as Sharded  # a DTensor is there, so it has been imported

    over = [number for number, placement in enumerate(parameter.placements) if not placement.is_replicate()]
    rows = all(
        type(parameter.placements[number]) is Sharded and parameter.placements[number].dim == 0 for number in over
    )
    if len(over) > 1 or not rows:
        raise ValueError(
            f"{where}: got placements {tuple(parameter.placements)}; allowed: replicated, or sharded by rows over one "
            "dimension of the mesh (fully_shard)"
        )
    if not over or parameter.device_mesh.size(over[0]) == 1:
        return None
    group: dist.ProcessGroup = parameter.device_mesh.get_group(over[0])
    return group


def _shard(parameter: Tensor, group: dist.ProcessGroup | None) -> Shard:
    if group is None:
        return Shard((0, parameter.numel()), 0)
    from torch.distributed.tensor import Shard as Sharded

    rows, world = parameter.shape[0], dist.get_world_size(group)
    sizes = [Sharded.local_shard_size_and_offset(rows, world, rank)[0] for rank in range(world)]
    of_a_row = parameter.numel() // rows if rows else 0
    bounds = [0]
    for size in sizes:
        bounds.append(bounds[-1] + int(size) * of_a_row)
    return Shard(tuple(bounds), _place(parameter))


def _place(parameter: Any) -> int:
    """Which part this process holds: its place in the mesh, which need not be its rank in the group."""
    (over,) = (number for number, placement in enumerate(parameter.placements) if not placement.is_replicate())
    return int(parameter.device_mesh.get_coordinate()[over])


def _members(group: dist.ProcessGroup) -> list[int]:
    members: list[int] = dist.get_process_group_ranks(group)
    return members


def _check(parameter: Tensor, first: Tensor, where: str) -> None:
    if not own(parameter).is_contiguous():
        raise ValueError(f"{where}: got strides {parameter.stride()}; allowed: contiguous parameters")
    if parameter.is_complex():
        raise ValueError(f"{where}: got {parameter.dtype}; allowed: real parameters")
    if parameter.device != first.device:
        raise ValueError(f"{where}: got device {parameter.device}; allowed: one device for all, here {first.device}")


class HeldBlocks:
    """Blocks of coordinates, those of a width together, and what this process holds of them.

    They are read and written all at once, whatever their width. `parts` in their order; `thetas`: where they are in the
    parameters' memory; `tells`: for each, whether this process speaks for it: of what all hold, the first does.
    `native`: read and written in a C++ loop where that can be compiled.
    """

    def __init__(
        self,
        blocks: Sequence[Blocks],
        shards: Sequence[Shard],
        memory: Sequence[Tensor],
        ranks: Ranks,
        native: bool = False,
    ) -> None:
        self.blocks = tuple(blocks)
        self.parts = tuple(_held(self.blocks, shards))
        segments = [segment for alike in self.blocks for segment in alike.segments]
        self.sizes = [part.stop - part.start for part in self.parts]
        self._widths = [alike.width for alike in self.blocks]
        self._lengths = [alike.n_coordinates for alike in self.blocks]
        self.tells = [shards[part.parameter].divided or ranks.rank == 0 for part in self.parts]
        together = any(shards[segment.parameter].divided for segment in segments)
        self._ranks = ranks if together else Ranks(None, ranks.rank)
        self._one_dtype = len({memory[segment.parameter].dtype for segment in segments}) == 1
        self._like = memory[0].new_zeros(0, dtype=_widest([memory[segment.parameter] for segment in segments]))
        self._kernels = native_kernels() if native else None
        self._where = Where.of(self.parts)
        self.thetas = self.places(memory)
        self._at = self._told = None
        if self._ranks.group is not None:
            nowhere = torch.zeros(0, dtype=torch.int64, device=self._like.device)
            at = [
                torch.arange(part.place, part.place + size) for part, size in zip(self.parts, self.sizes, strict=True)
            ]
            told = [torch.full((size,), tells) for size, tells in zip(self.sizes, self.tells, strict=True)]
            self._at = torch.cat([nowhere, *(own_at.to(nowhere.device) for own_at in at)])
            self._told = torch.cat([nowhere, *told]).nonzero().flatten().to(nowhere.device)

    def places(self, tensors: Sequence[Tensor | None], fit: bool = False) -> Places:
        """Where the parts are in `tensors`, this process's own of each parameter; `fit`: all of them, as is known."""
        if self._kernels is not None and (fit or fit_native([tensors[index] for index in self._where.parameters])):
            return NativePlaces(self._kernels, self._where, tensors)
        return TorchPlaces(self.parts, tensors, self._like)

    def theta(self) -> Tensor:
        """The whole blocks as they stand, end to end, a copy; every process that holds the model has to ask."""
        own_theta = self.thetas.joined()
        if self._at is None:
            return own_theta
        wide, bits = (torch.float64, torch.int64) if self._like.dtype == torch.float64 else (torch.float32, torch.int32)
        flat = self._like.new_zeros(sum(self._lengths), dtype=wide)
        flat[self._at[self._told]] = own_theta[self._told].to(wide)
        self._ranks.sum_(flat.view(bits))
        return flat.to(self._like.dtype)

    def moved(self, last: Tensor | None) -> Tensor | None:
        """The blocks as `theta` tells them; None where that is `last`."""
        if last is not None and self._at is None and self.thetas.same(last):
            return None
        theta = self.theta()
        return None if last is not None and self._at is not None and torch.equal(theta, last) else theta

    def by_width(self, flat: Tensor) -> list[Tensor]:
        """Views of values of the whole blocks, a (blocks, width) for each width."""
        parts = [flat] if len(self._lengths) == 1 else flat.split(self._lengths)
        return [part.view(-1, width) for width, part in zip(self._widths, parts, strict=True)]

    def rounded(self, q: Tensor) -> Tensor:
        """To the dtype of the parameters, where they have one; else each part is rounded where it is added."""
        return q.to(self._like.dtype) if self._one_dtype else q

    def held(self, flat: Tensor) -> Tensor:
        """Of values of the whole blocks, end to end, those that belong to the parts."""
        return flat if self._at is None else flat[self._at.to(flat.device)]


def _held(blocks: Sequence[Blocks], shards: Sequence[Shard]) -> Iterator[Part]:
    before = 0
    for alike in blocks:
        yield from (part._replace(place=part.place + before) for part in alike.held(shards))
        before += alike.n_coordinates


def _widest(tensors: Sequence[Tensor]) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
