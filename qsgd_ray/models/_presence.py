"""Check that quantum attention takes effect: before it is added, after the first forward pass, and when it is saved.

A transformers layer takes a registered attention if its class looks it up in `ALL_ATTENTION_FUNCTIONS`. All the others
would keep their own, and angles that no forward pass reads would train nothing without a word.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

from torch import nn

# The name of the submodule that an attention layer gets.
SUBMODULE = "quantum_attention"
# The place where transformers' layers look up the attention that `attn_implementation` names.
_REGISTRY = "ALL_ATTENTION_FUNCTIONS"
# Parts of names of layers that a forward pass may leave out: attention to another sequence, which may be missing.
_OPTIONAL = ("cross", "encdec")


def takes_registered_attention(layer: nn.Module) -> bool:
    """Return True where a method of the layer's class looks attention up in transformers' registry."""
    return any(
        _REGISTRY in _names(inspect.unwrap(method).__code__)
        for cls in type(layer).__mro__
        for method in vars(cls).values()
        if inspect.isfunction(method)
    )


def _names(code: CodeType) -> set[str]:
    """Return the global names that a function reads, those within it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def watch_first_pass(model: nn.Module, layers: list[nn.Module]) -> None:
    """Raise after the first forward pass of a model of which some layers have not called their quantum attention.

    The innermost transformers model around a layer does it, so that the part for images of a model that reads a text
    alone does not count. Left out are layers that attend to another sequence, as there may be none, and a training
    pass with layers dropped at random.

    Args:
        model: the model.
        layers: its layers that have a submodule `quantum_attention`.

    Raises:
        RuntimeError: from the forward pass, in one line.
    """
    for layer in layers:
        layer.quantum_attention_called = False  # type: ignore[assignment]
    from transformers import PreTrainedModel

    for owner in model.modules():
        if owner is model or isinstance(owner, PreTrainedModel):
            owner.quantum_attention_checked = False  # type: ignore[assignment]
            if _check_called not in owner._forward_hooks.values():
                owner.register_forward_hook(_check_called)


def mark_called(layer: nn.Module) -> None:
    """Note that a layer has called its quantum attention."""
    if not getattr(layer, "quantum_attention_called", True):
        layer.quantum_attention_called = True  # type: ignore[assignment]


def _check_called(owner: nn.Module, _: Any, __: Any) -> None:
    """Forward hook of a model; see `watch_first_pass`."""
    if owner.quantum_attention_checked:
        return
    layers = list(_own_layers(owner, ""))
    silent = [
        (name, layer)
        for name, layer in layers
        if not layer.quantum_attention_called and not any(word in name.lower() for word in _OPTIONAL)
    ]
    settings = getattr(getattr(owner, "config", None), "__dict__", {})
    if silent and owner.training and any(value for name, value in settings.items() if "layerdrop" in name):
        return
    if silent:
        name, layer = silent[0]
        raise RuntimeError(
            f"quantum attention: {len(silent)} of {len(layers)} layers of {type(owner).__name__} did not call it in "
            f"the first forward pass ({type(layer).__name__} at {name}); allowed: layers that take theirs from "
            "attn_implementation"
        )
    owner.quantum_attention_checked = True  # type: ignore[assignment]


def _own_layers(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers with quantum attention and their names; those of models within the model are theirs."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if hasattr(child, "quantum_attention_checked"):
            continue
        if SUBMODULE in child._modules:
            yield f"{path} {type(child).__name__}", child
        else:
            yield from _own_layers(child, f"{path}.")


def warn_where_peft_leaves_out(module: nn.Module, prefix: str, _: bool) -> None:
    """State-dict hook of a quantum attention: warn where peft saves its adapters, and these angles not with them.

    peft (0.21) takes the state of the whole model and keeps of it the adapters' weights and `modules_to_save`. Only its
    caller tells this state from that of a checkpoint.
    """
    own = not prefix or "modules_to_save." in prefix or "original_module." in prefix
    if own or not list(module.parameters()):
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "get_peft_model_state_dict":
        frame = frame.f_back
    if frame is not None:
        warnings.warn(
            "save_pretrained of adapters (peft) leaves out the angles of quantum attention; save them by "
            f"torch.save(model.state_dict(), ...), or let peft have modules_to_save=['{SUBMODULE}']",
            stacklevel=2,
        )
