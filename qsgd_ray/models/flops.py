"""What a model's mathematics costs: a transformers language model in, floating point operations of a step out.

Counted as for model FLOP utilisation (PaLM, arXiv 2204.02311, appendix B): a multiplication and an addition are two,
the backward pass is twice the forward one, and what is computed again to save memory counts once. Attention is that of
all pairs, though half of them are masked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class StepFlops:
    """`trained` and `frozen`: weights of the linear layers; the gradient of a frozen weight is not computed. `head`:
    6 or 4 times the weights of the layer that makes logits. `attention`: layers * heads * size of a head."""

    trained: int
    frozen: int
    head: int
    attention: int

    def of(self, lengths: Iterable[int], n_logits: int) -> float:
        """Forward and backward over sequences of so many tokens, with logits at `n_logits` of all these."""
        per_token = 6 * self.trained + 4 * self.frozen
        return float(sum(n * per_token + 12 * self.attention * n * n for n in lengths) + n_logits * self.head)


def step_flops(model: Any) -> StepFlops:
    """Of a transformers causal language model, perhaps within adapters."""
    counts = {True: 0, False: 0}
    head = model.get_output_embeddings()
    for part in model.modules():
        if isinstance(part, nn.Linear) and part is not head:
            counts[part.weight.requires_grad] += part.weight.numel()
    of_head = (6 if head.weight.requires_grad else 4) * head.weight.numel()
    config = model.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return StepFlops(
        counts[True], counts[False], of_head, config.num_hidden_layers * config.num_attention_heads * head_size
    )
