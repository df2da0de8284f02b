"""The loss of a language model: batches come in; sums over tokens and their number go out, exact to add up.

A mean over the tokens of a step is not the mean of the means of its parts, as these have different numbers of tokens.
So every part knows how many tokens count in the whole step, and divides its sum by that: over any number of workers and
of parts, the gradient is the one of a single process with a single large batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsgd_ray.workloads.chat import IGNORED
from qsgd_ray.workloads.token_batches import TokenBatch, TokenStep


@dataclass(frozen=True)
class TokenSums:
    """`loss_sum` in nats over `n_tokens` tokens, so that the shares of several ranks add up."""

    loss_sum: float
    n_tokens: int

    @property
    def mean(self) -> float | None:
        """None: no token."""
        return self.loss_sum / self.n_tokens if self.n_tokens else None

    def __add__(self, other: TokenSums) -> TokenSums:
        return TokenSums(self.loss_sum + other.loss_sum, self.n_tokens + other.n_tokens)


def token_loss(model: nn.Module, batch: TokenBatch) -> Tensor:
    """The sum of the cross entropies of all tokens that count, in nats: a scalar to differentiate.

    `model`: a transformers causal language model, perhaps within adapters or DistributedDataParallel. It is asked for
    the logits that count only; a large vocabulary makes all others as costly as layers.
    """
    logits: Tensor = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=batch.predicting,
        use_cache=False,
    ).logits
    targets = batch.labels[:, batch.predicting + 1]
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def backward_step(
    model: nn.Module,
    step: TokenStep,
    world_size: int = 1,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """Add the gradient of the mean loss over all tokens of the step; returns this rank's sum, detached, in float64.

    With several ranks, `model` averages gradients over them (DistributedDataParallel, FSDP), hence the factor
    world_size; it does so once, at the last micro batch. `backward` differentiates a loss, e.g. a scaled one.
    """
    scale = world_size / max(step.n_tokens, 1)
    total = torch.zeros((), dtype=torch.float64, device=step.micro_batches[0].labels.device)
    for n, batch in enumerate(step.micro_batches, start=1):
        with _quiet(model, last=n == len(step.micro_batches)):
            loss = token_loss(model, batch)
            backward(loss * scale)
        total += loss.detach()
    return total


def measure_loss(model: nn.Module, batches: Iterable[TokenBatch]) -> TokenSums:
    """The loss over batches without dropout and without gradients; the model's mode is put back."""
    loss_sum, n_tokens, was_training = 0.0, 0, model.training
    model.eval()
    try:
        # Not inference_mode: what is made there can never enter autograd again.
        with torch.no_grad():
            for batch in batches:
                loss_sum += token_loss(model, batch).item()
                n_tokens += int((batch.labels[:, 1:] != IGNORED).sum())
    finally:
        model.train(was_training)
    return TokenSums(loss_sum, n_tokens)


def _quiet(model: Any, last: bool) -> AbstractContextManager[None]:
    """Where gradients are averaged over the ranks, not yet."""
    return nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
