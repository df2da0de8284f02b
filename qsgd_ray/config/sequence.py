"""Sequences of tokens, and generative models: bases with the losses and metrics that are usual for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsgd_ray.config._numbers import Whole
from qsgd_ray.config.metric import Metric
from qsgd_ray.config.supervised import SupervisedTask

if TYPE_CHECKING:
    import torch


class SequenceTask(SupervisedTask):
    """Base of tasks that predict each token from those before it: derive from it, state fields, `data` and `model`.

    Data are int64 tensors of shape (items, length); `model(tokens)` gives logits of shape (batch, length, vocabulary),
    where those at a place may see the tokens up to that place. The loss of an item is the mean over its tokens.

    Attributes:
        batch_size: sequences of a step, over all workers, >= 1.
        data_seed: names the draws of the data, 0 to 2^32 - 1. All arms and seeds have the same data.
        target_accuracy: validation accuracy whose first epoch is recorded, in (0, 1); the share of right tokens.
        clip_norm: the largest norm that the gradient of a step keeps, > 0. None: it is not clipped.
        pad_token: token that fills sequences up and is not predicted. None: there is none.

    Example:
        >>> from qsgd_ray.config import SequenceTask
        >>> SequenceTask.model_fields["pad_token"].default is None
        True
    """

    pad_token: Whole | None = None

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """Return the mean cross entropy in nats, over the tokens of each sequence and then over the sequences.

        Args:
            model: maps tokens (batch, length) to logits (batch, length, vocabulary).
            batch: int64, shape (batch, length).
        """
        from torch.nn.functional import cross_entropy

        logits, targets, counted = self._predictions(model, batch)
        losses = cross_entropy(logits.transpose(1, 2), targets, reduction="none") * counted
        return (losses.sum(dim=1) / counted.sum(dim=1).clamp(min=1)).mean()

    def metrics(self, model: torch.nn.Module, batch: Any) -> Mapping[str, tuple[Any, Any]]:
        """Return the number of right tokens and of all.

        Args:
            model: as in `loss`.
            batch: as in `loss`.
        """
        logits, targets, counted = self._predictions(model, batch)
        return {"accuracy": (((logits.argmax(dim=-1) == targets) & counted).sum(), counted.sum())}

    def _predictions(self, model: torch.nn.Module, tokens: Any) -> tuple[Any, Any, Any]:
        """Return logits for the next token, that token, and where it counts."""
        targets = tokens[:, 1:]
        counted = targets == targets if self.pad_token is None else targets != self.pad_token
        return model(tokens)[:, :-1], targets, counted


class GenerativeTask(SupervisedTask):
    """Base of generative models: derive from it, state fields, `data`, `model` and `loss`.

    The loss, such as a negative bound on the likelihood or a denoising error, is the one metric unless `measured` and
    `metrics` say otherwise. Its noise may come from torch's global generator: in training it follows from the trial's
    seed, in an evaluation it is the same for every epoch and arm.

    Attributes:
        batch_size: items of a step, over all workers, >= 1.
        data_seed: names the draws of the data, 0 to 2^32 - 1. All arms and seeds have the same data.
        target_accuracy: not used, as there is no accuracy.
        clip_norm: the largest norm that the gradient of a step keeps, > 0. None: it is not clipped.

    Example:
        >>> from qsgd_ray.config import GenerativeTask
        >>> GenerativeTask.model_fields["batch_size"].default
        32
    """

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The loss alone: less is better."""
        return (Metric("loss", direction="min", unit="nats"),)

    @classmethod
    def _required(cls) -> dict[str, Any]:
        return super()._required() | {"loss": SupervisedTask.loss}

    def metrics(self, model: torch.nn.Module, batch: Any) -> Mapping[str, tuple[Any, Any]]:  # noqa: ARG002
        """Return no further metrics; see `SupervisedTask.metrics`.

        Args:
            model: the model.
            batch: items of the validation or the test data.
        """
        return {}
