"""Derivatives beyond an engine's own: an error in one line where autograd would go on with zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def once(gradient: Tensor, what: str, *sources: Tensor | None) -> Tensor:
    """Return a gradient that was computed by hand; a derivative of it raises.

    torch's `once_differentiable` does so only where the incoming gradient has a graph: with a linear loss the second
    derivative was zero (2026-11-29).

    Args:
        gradient: computed without a graph, in the backward of an autograd function.
        what: the function, for the message.
        sources: the tensors that the gradient depends on, with their graphs; None: not there.

    Returns:
        The same numbers. Where a graph is recorded (`create_graph=True`) and a source has one, a backward pass through
        them raises a RuntimeError.
    """
    if not torch.is_grad_enabled():
        return gradient
    guarded: Tensor = _Once.apply(gradient, what, *sources)
    return guarded


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, what: str, *_: Tensor | None) -> Tensor:
        ctx.what = what
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        raise RuntimeError(f"{ctx.what}: got a second derivative; allowed: first derivatives, in reverse mode")


def has_tangent(*tensors: Tensor) -> bool:
    """Return True where forward-mode differentiation carries a tangent beside one of the tensors."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)
