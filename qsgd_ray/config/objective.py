"""Objectives without data, such as energies and graphs: a class states problem instances, a model and an objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from qsgd_ray.config._numbers import MOST, Whole
from qsgd_ray.config.metric import Metric
from qsgd_ray.config.own_task import OwnTask, _CommonFields

if TYPE_CHECKING:
    import torch


class _Limits(_CommonFields):
    steps_per_epoch: Whole = Field(default=100, ge=1, le=MOST)
    n_held_out: Whole = Field(default=64, ge=1, le=MOST)


class ObjectiveTask(OwnTask):
    """Base of tasks that minimise an objective: derive from it, state fields, `model` and `objective`.

    A batch is a number of problem instances, drawn anew for every step and the same in all arms; held-out instances are
    drawn once. A task of one fixed problem states no `instances`.

    Attributes:
        batch_size: instances of a step, over all workers, >= 1.
        data_seed: names the draws of the held-out instances, 0 to 2^32 - 1.
        target_accuracy: not used, as an objective has no accuracy.
        clip_norm: the largest norm that the gradient of a step keeps, > 0. None: it is not clipped.
        steps_per_epoch: steps after which a trial is measured, >= 1.
        n_held_out: instances of the validation and of the test split each, >= 1.

    Raises:
        InvalidSettings: a wrong field, or a class that no other process could import.

    Example:
        >>> from qsgd_ray.config import ObjectiveTask
        >>> ObjectiveTask.model_fields["steps_per_epoch"].default
        100
    """

    steps_per_epoch: Whole = Field(default=100, ge=1, le=MOST)
    n_held_out: Whole = Field(default=64, ge=1, le=MOST)

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The objective alone, by the name `loss`: less is better."""
        return (Metric("loss", direction="min"),)

    @classmethod
    def _limits(cls) -> type[_CommonFields]:
        return _Limits

    @classmethod
    def _required(cls) -> dict[str, Any]:
        return {"model": ObjectiveTask.model, "objective": ObjectiveTask.objective}

    def instances(self, generator: torch.Generator, n: int) -> Any:  # noqa: ARG002
        """Return problem instances: tensors that share their first axis of n; by default tensors without content.

        Args:
            generator: torch's, on the CPU; named by seed, epoch and step, or by `data_seed`.
            n: number of instances.
        """
        import torch

        return torch.empty(n, 0)

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        """Return a model on the CPU; see `SupervisedTask.model`.

        Args:
            generator: torch's, for weights that are drawn by hand.
        """
        raise NotImplementedError

    def objective(self, model: torch.nn.Module, instances: Any) -> torch.Tensor:
        """Return the mean objective over instances, a scalar that is to be small.

        Args:
            model: the model, perhaps in DistributedDataParallel or in shards.
            instances: what `instances` returned, or a part of it.
        """
        raise NotImplementedError

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the objective.

        Args:
            model: the model.
            batch: problem instances.
        """
        return self.objective(model, batch)

    def metrics(self, model: torch.nn.Module, batch: Any) -> dict[str, tuple[Any, Any]]:  # noqa: ARG002
        """Return no further metrics; see `SupervisedTask.metrics`.

        Args:
            model: the model.
            batch: held-out instances.
        """
        return {}
