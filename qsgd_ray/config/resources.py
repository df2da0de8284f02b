"""Resources that Ray is asked for, and the way in which its processes share a training."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from qsgd_ray.config._numbers import MOST_PROCESSES, MOST_SECONDS, Count, Real, Whole
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import ALL_FIELDS, Settings
from qsgd_ray.config.worker_resources import Cpus, Gigabytes, Gpus, NodeKind, WorkerResources

# A process that must be on some kind of node asks for this much of its resource; a cluster decides how much there is.
SHARE_OF_NODE = 0.001
_MOST_RETRIES = 16
# Fields that came later: at their defaults they are left out, so that a study of before is stored as it was.
_LATER = ("memory_gb_per_worker", "on_out_of_memory")
_BYTES_PER_GB = 1e9


# `alone`: again with nothing else beside it.
Retry = Literal["alone"] | WorkerResources
Sharding = Literal["ddp", "fsdp"]


class Resources(Settings):
    """Resources that Ray is asked for, and the way in which its processes share a training.

    Answers by generation (`LanguageTask.n_answers`) put the whole weights on every worker, also under `fsdp`.

    Attributes:
        cpus_per_worker: CPUs of a training worker, 0.0001 to 4096.
        gpus_per_worker: GPUs of a training worker, 0 to 1024; less than 1 shares one, more than 1 are whole ones.
        memory_gb_per_worker: memory in GB (10^9 bytes) that Ray keeps free for a training worker, 0.001 to 10^6; fewer
            run beside each other where a node has less. It limits nothing. None: Ray counts no memory.
        worker_nodes: custom resource of the nodes on which workers may be (cluster/README.md: `train`). None: anywhere.
            A private Ray carries what is named here.
        least_workers: a trial begins with so few, and goes on with them from its last checkpoint, while Ray has no room
            for all that the study names; every minute it looks whether there is. Needs `checkpoint_steps`. None: a
            trial waits for all of its workers.
        on_out_of_memory: what is tried in turn with a trial that ran out of memory, after the others of its stage:
            again `"alone"`, one trial at a time, or with other `WorkerResources`, such as
            `{"memory_gb_per_worker": 64}`; each attempt runs alone. After the last one the trial is `failed`. Empty: it
            is `unavailable`, counts as no result, and the same command tries it again.
        sharding: how the workers of a trial hold the model: `ddp` whole, `fsdp` in shards (training/replica.py).
        checkpoint_steps: steps between checkpoints, from which a training goes on if its processes die or the study is
            run again, >= 1. None: it begins anew.
        checkpoints_kept: the newest that are kept until the trial has its row, >= 1.
        circuit_actors: actors that simulate circuits for all workers, >= 1. None: every worker simulates its own.
        max_circuit_actors: the most actors while requests wait, >= `circuit_actors`. None: no more.
        cpus_per_circuit_actor: CPUs of a circuit actor, 0.0001 to 4096.
        circuit_nodes: custom resource of the nodes on which circuit actors may be (`sim`). None: anywhere.
        circuit_engine: engine of circuits (circuits/select/auto.py); `sampled` and `noisy` perturbations need `auto`.
        circuit_idle_s: seconds without use after which an actor beyond `circuit_actors` goes, > 0.
        circuit_timeout_s: seconds after which a call of an actor is taken to hang, > 0.

    Example:
        >>> Resources(circuit_actors=None).sharding
        'ddp'
    """

    cpus_per_worker: Cpus = 1
    gpus_per_worker: Gpus = 0
    memory_gb_per_worker: Gigabytes | None = None
    worker_nodes: NodeKind | None = None
    least_workers: Whole | None = Field(default=None, ge=1, le=MOST_PROCESSES)
    on_out_of_memory: tuple[Retry, ...] = Field(default=(), max_length=_MOST_RETRIES)
    sharding: Sharding = "ddp"
    checkpoint_steps: Count | None = None
    checkpoints_kept: Count = 2
    circuit_actors: Whole | None = Field(default=1, ge=1, le=MOST_PROCESSES)
    max_circuit_actors: Whole | None = Field(default=None, ge=1, le=MOST_PROCESSES)
    cpus_per_circuit_actor: Cpus = 1
    circuit_nodes: NodeKind | None = None
    circuit_engine: Literal["auto", "torch", "chain", "aer"] = "auto"
    circuit_idle_s: Real = Field(default=30, gt=0, le=MOST_SECONDS)
    circuit_timeout_s: Real = Field(default=60, gt=0, le=MOST_SECONDS)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_circuit_actors is not None and self.max_circuit_actors < (self.circuit_actors or math.inf):
            at_least = "with circuit_actors" if self.circuit_actors is None else f"at least {self.circuit_actors}"
            raise refusal(f"max_circuit_actors {at_least}; got {self.max_circuit_actors}")
        if self.least_workers is not None and self.checkpoint_steps is None:
            raise refusal(f"least_workers with checkpoint_steps; got {self.least_workers} without")
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(
        self, as_tree: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        tree: dict[str, Any] = as_tree(self)
        if info.context != ALL_FIELDS:
            for name in _LATER:
                if getattr(self, name) == type(self).model_fields[name].default:
                    tree.pop(name, None)
        return tree

    def with_worker(self, other: WorkerResources | None) -> Resources:
        """Return these resources with another worker's; as they are where there is none.

        Args:
            other: fields that are set replace these.
        """
        return self if other is None else self.model_copy(update=other.changes())

    def worker_request(self) -> dict[str, float]:
        """Return what a training worker asks of Ray, by Ray's own names: CPU, GPU, memory in bytes, kind of node."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        memory = {"memory": self.memory_bytes_per_worker} if self.memory_bytes_per_worker else {}
        return {"CPU": self.cpus_per_worker} | gpus | memory | self.worker_node_resources()

    @property
    def memory_bytes_per_worker(self) -> int:
        """Memory that is kept free for a training worker, in bytes; 0: none is counted."""
        return round((self.memory_gb_per_worker or 0) * _BYTES_PER_GB)

    def worker_node_resources(self) -> dict[str, float]:
        """Return the custom resources that a training worker asks for, besides CPUs and GPUs."""
        return {self.worker_nodes: SHARE_OF_NODE} if self.worker_nodes else {}

    def circuit_node_resources(self) -> dict[str, float]:
        """Return the custom resources that a circuit actor asks for, besides CPUs."""
        return {self.circuit_nodes: SHARE_OF_NODE} if self.circuit_nodes else {}
