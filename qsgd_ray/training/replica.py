"""One of several processes that train together: a model comes in; it goes out as this process holds it.

`ddp`: each process has all of the model (DistributedDataParallel). `fsdp`: each has its share of every tensor's rows
and gathers the others' when a layer needs them (FSDP2, fully_shard), so a model, its gradients and its moments may be
larger than one device. Both give the gradient of one process. A single process imports neither: each takes a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qsgd_ray.config import Sharding


@dataclass(frozen=True)
class Replica:
    """One process of those that train together; with more than one, torch.distributed is initialised.

    Attributes:
        rank: number of this process, 0 <= rank < world_size.
        world_size: number of processes, >= 1.
        device: device of this process, e.g. "cpu" or "cuda:0".
        sharding: "ddp", whole models, or "fsdp", shards.
    """

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    sharding: Sharding = "ddp"

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return each value summed over the replicas, in float64; the same bits on all of them."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def all_reduce_max(self, *values: float) -> list[float]:
        """Return the largest of each value over the replicas."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: tuple[float, ...], how: Any) -> list[float]:
        if self.world_size == 1:
            return list(values)
        # Reduced where the process group's backend can reach it (gloo: CPU, nccl: GPU).
        totals = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(totals, op=how)
        return totals.tolist()

    def broadcast(self, flag: bool) -> bool:
        """Return the flag of rank 0 on every replica."""
        return bool(self.all_reduce_sum(float(flag and self.rank == 0))[0])

    @property
    def device_type(self) -> str:
        """Return the kind of device, "cpu" or "cuda"."""
        return torch.device(self.device).type


SINGLE_PROCESS = Replica()


def distribute(model: nn.Module, replica: Replica) -> nn.Module:
    """Move a model to the replicas' devices so that its gradients become means over the replicas.

    Under `fsdp` only its shards are moved: its parameters become DTensors, and the gradients of micro batches are added
    up in shards, so that no device ever holds the whole model. Each layer of its outermost module lists is sharded by
    itself, and the rest of the model together.

    Args:
        model: a model on the CPU, the same bits on every replica.
        replica: this process.

    Returns:
        The module that a training step calls: `model` itself, or `model` in DistributedDataParallel.
    """
    if replica.world_size == 1:
        return model.to(replica.device)
    if replica.sharding == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(model.to(replica.device))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(replica.device_type, (replica.world_size,))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of the outermost module lists."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)


@contextmanager
def full_weights(model: nn.Module) -> Iterator[None]:
    """Gather all weights on every process for the time of a block, at the cost of their memory.

    Each process may then call the model as often as it likes: to generate a token, none waits for the others.
    """
    shards: list[Any] = [part for part in model.modules() if hasattr(part, "unshard")]  # FSDPModule
    for part in shards:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in shards:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor of which this process may have a shard; every replica must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # DTensor
