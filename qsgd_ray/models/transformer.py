"""The paper's text classifier: token ids (batch, length) come in, logits (batch, n_classes) go out.

Pre-norm encoder layers (post-norm needs warm-up, and the paper has none), learned positions, mean pooling, linear head.
Dropout acts on embeddings, attention weights, and the inside and the output of each sublayer, as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qsgd_ray import config
from qsgd_ray.circuits.fourier.series import SeriesReadout
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.models.attention import QuantumAttention, _run_circuits_together

if TYPE_CHECKING:
    from qsgd_ray.circuits.backends.protocol import CircuitBackend


class Attention(Protocol):
    """A function or module that mixes values; query, key, value and result are (batch, n_heads, length, d_head).

    The keyword is that of `torch.nn.functional.scaled_dot_product_attention`, which is itself an `Attention`.
    """

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float = 0.0) -> Tensor: ...


def _dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element of x with probability p (rounded to 2**-16), and scale the rest to keep the mean.

    torch draws a float for each element and makes the mask in three passes; with it a training step on one core takes
    a fifth longer (2026-11-22). Here 16 bits decide, so that one draw of 64 bits serves four elements, and the
    comparison writes floats itself.
    """
    dropped = round(p * 2**16)
    if dropped == 0:
        return x
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    mask = torch.ge(bits, dropped - 2**15, out=torch.empty_like(x, requires_grad=False))
    return x * mask.mul_(2**16 / (2**16 - dropped))


def _softmax_attention(query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float = 0.0) -> Tensor:
    """Compute softmax(Q K^T / sqrt(d_head)) V, with dropout on the weights; shapes as in `Attention`."""
    if dropout_p == 0:
        return F.scaled_dot_product_attention(query, key, value)
    weights = torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1), dim=-1)
    return _dropout(weights, dropout_p) @ value


class _EncoderLayer(nn.Module):
    """Pre-norm layer: x + attend(norm(x)), then x + feed_forward(norm(x)); x is (batch, length, d_model)."""

    def __init__(self, settings: config.Transformer, attention: Attention = _softmax_attention) -> None:
        super().__init__()
        self.n_heads = settings.n_heads
        self.dropout_p = settings.dropout
        self.attention = attention
        self.attention_norm = nn.LayerNorm(settings.d_model)
        self.query_key_value = nn.Linear(settings.d_model, 3 * settings.d_model)
        self.project = nn.Linear(settings.d_model, settings.d_model)
        self.feedforward_norm = nn.LayerNorm(settings.d_model)
        self.widen = nn.Linear(settings.d_model, settings.d_feedforward)
        self.narrow = nn.Linear(settings.d_feedforward, settings.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Return x after both sublayers, shape (batch, length, d_model)."""
        p = self.dropout_p if self.training else 0.0
        x = x + _dropout(self._attend(self.attention_norm(x), p), p)
        inner = _dropout(torch.relu(self.widen(self.feedforward_norm(x))), p)
        return x + _dropout(self.narrow(inner), p)

    def _attend(self, x: Tensor, p: float) -> Tensor:
        batch, length, d_model = x.shape
        heads = self.query_key_value(x).view(batch, length, 3, self.n_heads, d_model // self.n_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = self.attention(query, key, value, dropout_p=p)
        return self.project(mixed.transpose(1, 2).reshape(batch, length, d_model))


class TransformerClassifier(nn.Module):
    """Transformer encoder that classifies sequences of one length.

    Args:
        settings: width, heads, layers and dropout.
        vocabulary: number of tokens; 0 <= token < vocabulary.
        length: tokens of every sequence.
        n_classes: number of logits.
        attention: returns layer i's attention for i = 0, 1, ...; the parameters of a module become the model's. Called
            when all other weights have been drawn, so that a seed gives these weights whatever the attention. None:
            softmax attention in every layer.
    """

    def __init__(
        self,
        settings: config.Transformer,
        vocabulary: int,
        length: int,
        n_classes: int,
        attention: Callable[[int], Attention] | None = None,
    ) -> None:
        super().__init__()
        self.dropout_p = settings.dropout
        self.tokens = nn.Embedding(vocabulary, settings.d_model)
        self.positions = nn.Parameter(torch.empty(length, settings.d_model))
        layers = [_EncoderLayer(settings) for _ in range(settings.n_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(settings.d_model)
        self.head = nn.Linear(settings.d_model, n_classes)
        nn.init.normal_(self.positions)
        if attention is not None:
            for index, layer in enumerate(layers):
                layer.attention = attention(index)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, n_classes) of int64 tokens (batch, length)."""
        x = _dropout(self.tokens(tokens) + self.positions, self.dropout_p if self.training else 0.0)
        _run_circuits_together(
            [layer.attention for layer in self.layers if isinstance(layer.attention, QuantumAttention)]
        )
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))


def quantum_classifier(
    settings: config.Transformer,
    vocabulary: int,
    length: int,
    n_classes: int,
    *,
    spec: CircuitSpec | None = None,
    readout: SeriesReadout = "amplitude",
    per_head: bool = False,
    phi: bool = True,
    backend: CircuitBackend | None = None,
    compiled: bool = False,
) -> TransformerClassifier:
    """Make a `TransformerClassifier` whose layers each have a `QuantumAttention` with angles of its own.

    Args:
        settings: width, heads, layers and dropout; its field `attention` is not looked at.
        vocabulary: number of tokens.
        length: tokens of every sequence.
        n_classes: number of logits.
        spec: ansatz; None: the paper's (4 qubits, depth 2).
        readout: "amplitude" or "probability".
        per_head: True: a circuit for every head of every layer; False: one circuit a layer.
        phi: False: the classifier with softmax attention, bit for bit.
        backend: answers the circuits, for readout "probability"; None: exact simulation.
        compiled: True: evaluate the response by torch.compile.

    Returns:
        The classifier, its weights drawn from torch's global generator, the angles last.

    Raises:
        ValueError: as `QuantumAttention`.
    """

    def attention(_: int) -> Attention:
        n_heads = settings.n_heads if per_head else None
        return QuantumAttention(
            spec, readout=readout, n_heads=n_heads, backend=backend, dropout=_dropout, compiled=compiled
        )

    return TransformerClassifier(settings, vocabulary, length, n_classes, attention if phi else None)
