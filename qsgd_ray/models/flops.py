"""Cost of a model's mathematics: a transformers language model in, floating point operations of a step out.

The count is that of model FLOP utilisation (PaLM, arXiv 2204.02311, appendix B): a multiplication and an addition are
two, the backward pass is twice the forward one, and results that are computed again to save memory count once.
Attention is that of all pairs, though half of them are masked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class StepFlops:
    """Sizes of a model from which the operations of a step follow.

    Attributes:
        trained: weights of linear layers that train; each costs 2 operations a token forward and 4 backward.
        frozen: weights of linear layers that do not; without their gradient, 2 forward and 2 backward.
        head: operations for the logits of one token: 6 (trained) or 4 (frozen) times the weights of the output layer.
        attention: layers times heads times width of a head.
    """

    trained: int
    frozen: int
    head: int
    attention: int

    def count(self, lengths: Iterable[int], n_logits: int) -> float:
        """Count the operations of a forward and a backward pass.

        Args:
            lengths: tokens of each sequence, without padding.
            n_logits: tokens, of all these, whose logits are computed.

        Returns:
            Floating point operations: n (6 trained + 4 frozen) + 12 attention n^2 for each length n, plus the logits.
        """
        per_token = 6 * self.trained + 4 * self.frozen
        return float(sum(n * per_token + 12 * self.attention * n * n for n in lengths) + n_logits * self.head)


def step_flops(model: Any) -> StepFlops:
    """Count the weights of a transformers model, perhaps with adapters (peft).

    Args:
        model: a causal language model, or a classifier, whose small head counts as a layer of every token.

    Raises:
        AttributeError: its configuration names its sizes otherwise.
    """
    counts = {True: 0, False: 0}
    head = model.get_output_embeddings()
    for part in model.modules():
        if isinstance(part, nn.Linear) and part is not head:
            counts[part.weight.requires_grad] += part.weight.numel()
    head_flops = 0 if head is None else (6 if head.weight.requires_grad else 4) * head.weight.numel()
    config = model.config
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return StepFlops(
        counts[True], counts[False], head_flops, config.num_hidden_layers * config.num_attention_heads * head_size
    )
