"""Quantum attention in Hugging Face models: a transformers model comes in; the same with circuits in every layer out.

    model = AutoModelForCausalLM.from_pretrained(...)
    add_quantum_attention(model)

From then on its attention layers call `QuantumAttention`, each with angles of its own, which train, move and are saved
with the model. To load such weights: build the model, `add_quantum_attention`, `load_state_dict`. Adapters (peft) save
the angles where their `modules_to_save` have "quantum_attention", and warn that they do not elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from qsgd_ray.circuits.fourier.series import SeriesReadout
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.models._presence import (
    SUBMODULE,
    mark_called,
    takes_registered_attention,
    warn_where_peft_leaves_out,
    watch_first_pass,
)
from qsgd_ray.models.attention import QuantumAttention

if TYPE_CHECKING:
    from qsgd_ray.circuits.backends.protocol import CircuitBackend

# Some models want these of an attention besides a mask; without them it would silently be another model.
_UNSUPPORTED = ("softcap", "position_bias", "s_aux", "cache")


def add_quantum_attention(
    model: Any,
    spec: CircuitSpec | None = None,
    *,
    readout: SeriesReadout = "amplitude",
    per_head: bool = False,
    phi: bool = True,
    backend: CircuitBackend | None = None,
    compiled: bool = False,
    name: str = "quantum",
) -> list[QuantumAttention]:
    """Give every attention layer of a transformers model a `QuantumAttention`, and let the model use them.

    Each layer then computes (softmax(S / sqrt(e)) + Phi(S)) V with S = Q K^T (arXiv 2511.01918, Eq. 3 to 5) in place of
    softmax attention; `QuantumAttention` has the equations. The layers are the innermost modules whose class name
    contains "Attention". The model is changed in place; its other weights stay as they are. A second call replaces
    the circuits of the first.

    The angles are drawn from torch's global generator, mean 0 and standard deviation 0.1 (seed it to repeat a model),
    in torch's default type, on the device of the layer's first parameter.

    Args:
        model: a transformers model whose attention goes through `attn_implementation`. One that asks its attention
            for soft-capped scores, a position bias or attention sinks raises a ValueError when it is called.
        spec: ansatz of the circuits; None: the paper's (4 qubits, depth 2, Ry and Rz on each, CNOT chain).
        readout: "amplitude" (default; Eq. 4, simulators only) or "probability", which can be measured.
        per_head: True: a circuit for each of the config's `num_attention_heads`; False (default): one a layer.
        phi: False: no circuit and no angles; the model is then the one with torch's softmax attention.
        backend: answers the circuits, for readout "probability" alone; None: exact simulation.
        compiled: True: evaluate the response by torch.compile, which takes seconds at first.
        name: the name under which transformers knows this attention; the model's `attn_implementation` from now on.

    Returns:
        The layers' new submodules in the order of the model; the angles of each are `quantum_attention.angles`, shape
        (c, d, n, r) in radians: c circuits, d depth, n qubits, r rotations.

    Raises:
        ValueError: the model has no attention layer, or one that computes its attention itself, as GPT-J's; an unknown
            readout; a backend with readout "amplitude".
        RuntimeError: from the model's first forward pass: a layer did not call its circuits.

    Example:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from qsgd_ray.models.huggingface import add_quantum_attention
        >>> sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=20, **sizes))
        >>> [attention.angles.shape for attention in add_quantum_attention(model, per_head=True)]
        [torch.Size([4, 2, 4, 2]), torch.Size([4, 2, 4, 2])]
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 3, 20])
    """
    layers = _attention_layers(model)
    if not layers:
        raise ValueError(f"model: got {type(model).__name__} without attention layers; allowed: a model that has some")
    other = next((layer for layer in layers if not takes_registered_attention(layer)), None)
    if other is not None:
        raise ValueError(
            f"model: got {type(model).__name__}, whose {type(other).__name__} has an attention of its own; allowed: a "
            "model whose layers all take theirs from attn_implementation"
        )
    n_heads = model.config.get_text_config().num_attention_heads if per_head else None
    added = []
    for layer in layers:
        attention = QuantumAttention(
            spec, readout=readout, n_heads=n_heads, phi=phi, backend=backend, compiled=compiled
        )
        attention.register_state_dict_pre_hook(warn_where_peft_leaves_out)
        weight = next(layer.parameters(), None)
        layer.add_module(SUBMODULE, attention if weight is None else attention.to(weight.device))
        added.append(attention)
    _register(name)
    model.set_attn_implementation(name)
    watch_first_pass(model, layers)
    return added


def _register(name: str) -> None:
    """Make `attn_implementation=name` known to transformers, with the masks that sdpa gets (bool, True: attend)."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(name, _attend)
    AttentionMaskInterface.register(name, sdpa_mask)


def _attention_layers(model: nn.Module) -> list[nn.Module]:
    """Return the innermost modules whose class name contains "Attention", in the order of the model."""

    def named(module: nn.Module) -> bool:
        return "Attention" in type(module).__name__ and not isinstance(module, QuantumAttention)

    return [m for m in model.modules() if named(m) and not any(named(inner) for inner in m.modules() if inner is not m)]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Answer transformers' call of an attention function: heads (b, h, tokens, e) in, (b, tokens, h, e) out.

    Raises:
        ValueError: the layer has no quantum attention, or its model wants something that it does not do.
    """
    attention = getattr(module, SUBMODULE, None)
    if attention is None:
        raise ValueError(f"{type(module).__name__} has no quantum attention: call add_quantum_attention(model) first")
    mark_called(module)
    unsupported = [name for name in _UNSUPPORTED if others.get(name) is not None]
    if unsupported:
        raise ValueError(f"{type(module).__name__} asks for {', '.join(unsupported)}; quantum attention has none of it")
    # As in transformers' sdpa: a mask wins, and a single new token sees all of the cache.
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and query.shape[2] > 1
    if causal and key.shape[2] > query.shape[2]:  # a cache of fixed size, still empty behind these tokens
        key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
    out: Tensor = attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=dropout,
        is_causal=causal,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return out.transpose(1, 2).contiguous(), None
