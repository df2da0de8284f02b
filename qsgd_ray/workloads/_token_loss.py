"""The loss of a language model: batches come in; sums over tokens and their number go out, exact to add up.

A mean over the tokens of a step is not the mean of the means of its parts, as these have different numbers of tokens.
So every part has the number of tokens that count in the whole step, and divides its sum by it: over any number of
workers and of parts, the gradient is that of a single process with a single large batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsgd_ray.outcome import Evaluation
from qsgd_ray.workloads._chat import IGNORED
from qsgd_ray.workloads._token_batches import TokenBatch, TokenStep


def _token_loss(model: nn.Module, batch: TokenBatch) -> Tensor:
    """Return the sum of the cross entropies of all tokens that count, in nats: a scalar to differentiate.

    The model is a transformers causal language model, perhaps with adapters or in DistributedDataParallel. It computes
    the logits that count alone: with a large vocabulary the others would cost as much as layers.
    """
    return _summed(*_predictions(model, batch))


def _predictions(model: nn.Module, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Return logits (tokens, vocabulary), in float32 at least, and the tokens that they should predict (tokens,)."""
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
    return logits.flatten(0, 1), targets.flatten()


def _summed(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


def backward_step(
    model: nn.Module,
    step: TokenStep,
    world_size: int = 1,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """Add the gradient of the mean loss over all tokens of the step; return this rank's sum, detached, in float64.

    With several ranks the model averages gradients over them (DistributedDataParallel, FSDP), hence the factor
    `world_size`; it does so once, at the last micro batch. `backward` differentiates a loss, e.g. a scaled one.
    """
    scale = world_size / max(step.n_tokens, 1)
    total = torch.zeros((), dtype=torch.float64, device=step.micro_batches[0].labels.device)
    for n, batch in enumerate(step.micro_batches, start=1):
        with _without_reduction(model, last=n == len(step.micro_batches)):
            loss = _token_loss(model, batch)
            backward(loss * scale)
        total += loss.detach()
    return total


def evaluate_tokens(model: nn.Module, batches: Iterable[TokenBatch]) -> Evaluation:
    """Sum the loss of the tokens that count, and count those with the largest logit, given the true tokens before.

    It runs without dropout and without gradients, and puts the model's mode back.
    """
    loss_sum, n_correct, n, was_training = 0.0, 0, 0, model.training
    model.eval()
    try:
        # Not inference_mode: tensors that are made there can never enter autograd again.
        with torch.no_grad():
            for batch in batches:
                logits, targets = _predictions(model, batch)
                loss_sum += _summed(logits, targets).item()
                n_correct += int((logits.argmax(dim=-1) == targets).sum())
                n += int((targets != IGNORED).sum())
    finally:
        model.train(was_training)
    return Evaluation(loss_sum, n_correct, n)


def _without_reduction(model: Any, last: bool) -> AbstractContextManager[None]:
    """Put off the average of gradients over the ranks; not in shards, as whole gradients would be too large."""
    return nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
