"""Models on several processes: a model comes in; it goes out as this process holds it, whole or in shards.

`ddp`: each process has all of the model (DistributedDataParallel). `fsdp`: each has its share of every tensor's rows
and gathers the others' when a layer needs them (FSDP2, fully_shard), so a model, its gradients and its moments may be
larger than one device. Both give the gradient of one process. A single process imports neither: each takes a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from qsgd_ray.training.replica import Replica


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
