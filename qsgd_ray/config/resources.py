"""What Ray is asked for, and how its processes share a training; frozen, checked at birth."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qsgd_ray.config.base import Frozen
from qsgd_ray.config.errors import refusal

# Ray's own resources are capitalised, and `node:...`; what marks nodes here is a word of a cluster's own.
NodeKind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
# Whoever must be on some kind of node asks for this much of its resource: what one of it means, a cluster decides.
SHARE_OF_NODE = 0.001
Sharding = Literal["ddp", "fsdp"]


class Resources(Frozen):
    """What Ray is asked for, and how its processes share a training.

    `sharding`: how the workers of a trial hold the model, `ddp` whole or `fsdp` in shards (training/replica.py).
    `checkpoint_steps`: after so many steps each, a training is kept so that it goes on from there if its processes die
    or the study is run again (None: it begins anew); the `checkpoints_kept` newest are there until the trial has its
    row (training/). `least_workers`: a trial begins with so few, and goes on with them from its last checkpoint,
    while Ray has no room for all that the study names; every minute it looks whether there is (None: it waits for all).
    Answers by generation (`n_answers`) put the whole weights on every worker, also under `fsdp`.

    `circuit_actors` None: every training worker simulates its own circuits. Else so many actors simulate for all, and
    up to `max_circuit_actors` while requests wait (None: no more); those beyond `circuit_actors` go after
    `circuit_idle_s` seconds without use. `circuit_engine`: who simulates (circuits/select/auto.py); `sampled` and
    `noisy` perturbations need `auto`. `circuit_timeout_s`: a call that takes longer is taken to hang.

    `worker_nodes`, `circuit_nodes`: where workers and circuit actors may be, by a custom resource that the nodes of a
    cluster carry (cluster/README.md: `train` and `sim`). None: anywhere. A private Ray carries what is named here.
    """

    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    worker_nodes: NodeKind | None = None
    least_workers: int | None = Field(default=None, ge=1)
    sharding: Sharding = "ddp"
    checkpoint_steps: int | None = Field(default=None, ge=1)
    checkpoints_kept: int = Field(default=2, ge=1)
    circuit_actors: int | None = Field(default=1, ge=1)
    max_circuit_actors: int | None = Field(default=None, ge=1)
    cpus_per_circuit_actor: float = Field(default=1, gt=0)
    circuit_nodes: NodeKind | None = None
    circuit_engine: Literal["auto", "torch", "chain", "aer"] = "auto"
    circuit_idle_s: float = Field(default=30, gt=0)
    circuit_timeout_s: float = Field(default=60, gt=0)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_circuit_actors is not None and self.max_circuit_actors < (self.circuit_actors or math.inf):
            at_least = "with circuit_actors" if self.circuit_actors is None else f"at least {self.circuit_actors}"
            raise refusal(f"max_circuit_actors {at_least}; got {self.max_circuit_actors}")
        if self.least_workers is not None and self.checkpoint_steps is None:
            raise refusal(f"least_workers with checkpoint_steps; got {self.least_workers} without")
        return self

    def on_worker_nodes(self) -> dict[str, float]:
        """What a training worker asks for besides CPUs and GPUs."""
        return {self.worker_nodes: SHARE_OF_NODE} if self.worker_nodes else {}

    def on_circuit_nodes(self) -> dict[str, float]:
        """The same of a circuit actor."""
        return {self.circuit_nodes: SHARE_OF_NODE} if self.circuit_nodes else {}
