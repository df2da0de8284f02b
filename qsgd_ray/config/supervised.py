"""Supervised learning on data of one's own: a class states data and model; loss and metrics have defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsgd_ray.config.own_task import OwnTask, Splits

if TYPE_CHECKING:
    import torch


class SupervisedTask(OwnTask):
    """Base of tasks that learn from examples: derive from it, state fields, `data` and `model`.

    A class is frozen and its fields are checked, like all settings. The defaults of `loss` and `metrics` are those of
    classification: `model(x)` gives logits of shape (batch, classes), and a batch is `(x, y)` with class numbers y.

    Attributes:
        batch_size: items of a step, over all workers, >= 1; the items of an epoch that fill no batch are left out.
        data_seed: names the draws of the data, 0 to 2^32 - 1. All arms and seeds have the same data.
        target_accuracy: validation accuracy whose first epoch is recorded, in (0, 1).
        clip_norm: the largest norm that the gradient of a step keeps, > 0. None: it is not clipped.

    Raises:
        InvalidSettings: a wrong field, or a class that no other process could import.

    Example:
        >>> from qsgd_ray.config import SupervisedTask
        >>> SupervisedTask.model_fields["batch_size"].default
        32
    """

    @classmethod
    def _required(cls) -> dict[str, Any]:
        return {"data": SupervisedTask.data, "model": SupervisedTask.model}

    def data(self, generator: torch.Generator) -> Splits:
        """Return the data; it may depend on the fields and the generator alone.

        Args:
            generator: torch's, on the CPU; seeded from `data_seed`. torch's own functions without a generator draw from
                the same seed here; numpy and `random` do not.

        Returns:
            Three data sets, each a torch `Dataset` with a length or tensors that share their first axis.
        """
        raise NotImplementedError

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        """Return a model on the CPU; layers that torch initialises need no generator.

        Draws are named by their kind and shape: layers that two arms share start with the same numbers in both.

        Args:
            generator: torch's, for weights that are drawn by hand.
        """
        raise NotImplementedError

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the mean loss over the items of a batch, a scalar; by default the cross entropy in nats.

        Args:
            model: the model, perhaps in DistributedDataParallel or in shards.
            batch: items as the data set's `default_collate` puts them together; of tensors, a tuple of their rows.
        """
        from torch.nn.functional import cross_entropy

        x, y = batch
        return cross_entropy(model(x), y)

    def metrics(self, model: torch.nn.Module, batch: Any) -> Mapping[str, tuple[Any, Any]]:
        """Return sum and count of each metric over a batch; called without gradients, in eval mode.

        Args:
            model: the model.
            batch: items of the validation or the test data.

        Returns:
            By each name of `measured` but `loss`, which is measured by `loss` itself, a sum and a count. The metric of
            the data is sum / count, or the sum alone where its kind is `sum`. By default the accuracy.
        """
        x, y = batch
        return {"accuracy": ((model(x).argmax(dim=1) == y).sum(), len(y))}
