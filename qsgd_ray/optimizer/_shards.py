"""Find which part of each parameter this process holds, where parameters are shards (FSDP2's DTensors)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.nn.parameter import UninitializedParameter

from qsgd_ray.optimizer._blocks import Shard
from qsgd_ray.optimizer._gather import PLAIN_TYPES


class ShardGroup(NamedTuple):
    """The processes that hold a model together.

    Attributes:
        group: torch's group of them; None where this process holds the whole model.
        rank: this process among them.
    """

    group: dist.ProcessGroup | None = None
    rank: int = 0

    def sum_(self, values: Tensor) -> Tensor:
        """Sum over the processes in place and return the result; every process has to call."""
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
        return values


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, in the same memory: of a DTensor its local tensor."""
    # Called some hundred times a step: to look for an attribute that is not there takes longer than this test.
    if type(tensor) in PLAIN_TYPES:
        return tensor
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


@contextmanager
def aligned_gradients(parameters: Sequence[Any]) -> Iterator[None]:
    """Lay gradients of DTensors out as their parameters are, as long as the context lasts.

    They may come as partial sums or in other shards; torch's optimizers redistribute them in each operation. After the
    context `.grad` is the tensor that came.
    """
    originals: dict[Any, Any] = {}
    for parameter in parameters:
        if type(parameter) in PLAIN_TYPES or not hasattr(parameter, "to_local") or parameter.grad is None:
            continue
        gradient = parameter.grad
        if gradient.placements != parameter.placements:
            originals[parameter] = gradient
            parameter.grad = gradient.redistribute(parameter.device_mesh, parameter.placements)
    try:
        yield
    finally:
        for parameter, gradient in originals.items():
            parameter.grad = gradient


def is_divided(parameter: Any) -> bool:
    """Return True where several processes hold a part of the parameter each."""
    return hasattr(parameter, "to_local") and parameter.to_local().numel() < parameter.numel()


def shards_of(parameters: Sequence[Tensor]) -> tuple[list[Shard], ShardGroup]:
    """Return each parameter's shard and the processes that hold the model together.

    Parameters that are not sharded count as held whole by every process.

    Raises:
        ValueError: a parameter is sharded otherwise than by rows over one dimension of a mesh, or over other processes
            than an earlier one; is not contiguous; is complex; or lies on another device than the first.
    """
    shards, processes = [], ShardGroup()
    for index, parameter in enumerate(parameters):
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(f"parameter {index}: got a lazy one; allowed: initialised, by a forward pass")
        where = f"parameter {index} of shape {tuple(parameter.shape)}"
        group = _group(parameter, where)
        if group is not None and processes.group is not None and _members(group) != _members(processes.group):
            raise ValueError(
                f"{where}: got a shard among processes {_members(group)}; allowed: the same for all, here "
                f"{_members(processes.group)}"
            )
        shards.append(_shard(parameter, group))
        if group is not None and processes.group is None:
            processes = ShardGroup(group, shards[-1].rank)
        _check(parameter, parameters[0], where)
    return shards, processes


def _group(parameter: Any, where: str) -> dist.ProcessGroup | None:
    """Return the processes that hold a part of the parameter each; None where every process holds all of it."""
    if not hasattr(parameter, "to_local"):
        return None
    from torch.distributed.tensor import Shard as Sharded  # a DTensor is there, so it has been imported

    sharded = [number for number, placement in enumerate(parameter.placements) if not placement.is_replicate()]
    rows = all(
        type(parameter.placements[number]) is Sharded and parameter.placements[number].dim == 0 for number in sharded
    )
    if len(sharded) > 1 or not rows:
        raise ValueError(
            f"{where}: got placements {tuple(parameter.placements)}; allowed: replicated, or sharded by rows over one "
            "dimension of the mesh (fully_shard)"
        )
    if not sharded or parameter.device_mesh.size(sharded[0]) == 1:
        return None
    group: dist.ProcessGroup = parameter.device_mesh.get_group(sharded[0])
    return group


def _shard(parameter: Tensor, group: dist.ProcessGroup | None) -> Shard:
    if group is None:
        return Shard((0, parameter.numel()), 0)
    from torch.distributed.tensor import Shard as Sharded

    rows, world = parameter.shape[0], dist.get_world_size(group)
    sizes = [Sharded.local_shard_size_and_offset(rows, world, rank)[0] for rank in range(world)]
    row_size = parameter.numel() // rows if rows else 0
    bounds = [0]
    for size in sizes:
        bounds.append(bounds[-1] + int(size) * row_size)
    return Shard(tuple(bounds), _mesh_position(parameter))


def _mesh_position(parameter: Any) -> int:
    """Return the index of this process's part: its position in the mesh, which need not be its rank in the group."""
    (sharded,) = (number for number, placement in enumerate(parameter.placements) if not placement.is_replicate())
    return int(parameter.device_mesh.get_coordinate()[sharded])


def _members(group: dist.ProcessGroup) -> list[int]:
    members: list[int] = dist.get_process_group_ranks(group)
    return members


def _check(parameter: Tensor, first: Tensor, where: str) -> None:
    """Raise ValueError where a parameter cannot be cut into blocks."""
    if not local(parameter).is_contiguous():
        raise ValueError(f"{where}: got strides {parameter.stride()}; allowed: contiguous parameters")
    if parameter.is_complex():
        raise ValueError(f"{where}: got {parameter.dtype}; allowed: real parameters")
    if parameter.device != first.device:
        raise ValueError(f"{where}: got device {parameter.device}; allowed: one device for all, here {first.device}")
