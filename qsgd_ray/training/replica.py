"""One of several processes that train together, and what they compute together: sums, largest values, a decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

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


_SINGLE_PROCESS = Replica()
