"""One of several processes that train together: a model comes in; it goes out as this process holds it.

`ddp`: each has all of the model (DistributedDataParallel). `fsdp`: each has its share of every tensor's rows and takes
the others' when a layer needs them (FSDP2, fully_shard), so a model, its gradients and its moments may be larger than
one device. Both give the gradient of one process. What they take a second to import, only they import.
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
    """One of `world_size` processes of a training; with more than one, torch.distributed is initialised."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    sharding: Sharding = "ddp"

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Each value summed over the replicas, in float64; the same bits on all of them."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def all_reduce_max(self, *values: float) -> list[float]:
        """The largest of each value over the replicas."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: tuple[float, ...], how: Any) -> list[float]:
        if self.world_size == 1:
            return list(values)
        # Reduced where the process group's backend can reach it (gloo: CPU, nccl: GPU).
        totals = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(totals, op=how)
        return totals.tolist()

    def broadcast(self, stop: bool) -> bool:
        """What rank 0 decided, on every replica."""
        return bool(self.all_reduce_sum(float(stop and self.rank == 0))[0])

    @property
    def device_type(self) -> str:
        return torch.device(self.device).type


SINGLE_PROCESS = Replica()


def distribute(model: nn.Module, replica: Replica) -> nn.Module:
    """What to call in a training step in place of `model`, whose gradients are then means over the replicas.

    `model` is on the CPU and goes to the device. Under `fsdp` only its shards do: its parameters become DTensors, and
    the gradients of micro batches are added up in shards, so that no device ever holds all of it. The layers of its
    outermost module lists are shards of their own, what is left is one more.
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
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)


@contextmanager
def full_weights(model: nn.Module) -> Iterator[None]:
    """Within it every process holds all weights, so that each may call the model, or parts of it, as often as it likes.

    To write one token, no process then waits for the others; it takes the memory of the weights.
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
    """All of a tensor of which this process may have a share; every replica must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # DTensor
