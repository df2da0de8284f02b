"""Resources of a training worker where an arm, or a second attempt, has others than the study."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from qsgd_ray.config._numbers import Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings

# Ray names its own resources in capitals, or `node:...`; a cluster marks kinds of nodes by lower-case words.
NODE_KIND = r"^[a-z][a-z0-9_-]{0,39}$"
NodeKind = Annotated[str, Field(pattern=NODE_KIND)]


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise refusal("a whole number of GPUs, or a share of one below 1")
    return gpus


# Ray counts in ten-thousandths. No node has as many CPUs, or as much memory, as the upper ends.
Cpus = Annotated[Real, Field(ge=0.0001, le=4096)]
Gpus = Annotated[Real, Field(ge=0, le=1024), AfterValidator(_whole_above_one)]
Gigabytes = Annotated[Real, Field(ge=0.001, le=1_000_000)]


class WorkerResources(Settings):
    """Resources of a training worker that are others than the study's; a field that is None is as the study says.

    They change where and when a trial runs, not its numbers, so they are no part of a trial's name: rows stay valid.

    Attributes:
        cpus_per_worker: CPUs, 0.0001 to 4096.
        gpus_per_worker: GPUs, 0 to 1024; less than 1 shares one, more than 1 are whole ones.
        memory_gb_per_worker: memory in GB (10^9 bytes) that Ray keeps free for it, 0.001 to 10^6.
        worker_nodes: custom resource of the nodes on which it may be.

    Raises:
        InvalidSettings: no field is set.

    Example:
        >>> WorkerResources(gpus_per_worker=1).changes()
        {'gpus_per_worker': 1.0}
    """

    cpus_per_worker: Cpus | None = None
    gpus_per_worker: Gpus | None = None
    memory_gb_per_worker: Gigabytes | None = None
    worker_nodes: NodeKind | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.changes():
            raise refusal(f"one of {', '.join(type(self).model_fields)}; got none of them")
        return self

    @model_serializer(mode="wrap")
    def _what_is_set(self, as_tree: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = as_tree(self)
        return {name: value for name, value in tree.items() if value is not None}

    def changes(self) -> dict[str, Any]:
        """Return the fields that are set, with their values."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
