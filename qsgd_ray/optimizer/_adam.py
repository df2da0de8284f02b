"""Take Adam's step on flat pieces of parameters, or compute its direction without taking it.

A piece is a stretch of one parameter's coordinates with its gradient and moments, all flat views of their memory. Work
on large models goes piece by piece, so that what one pass reads is still in the cache for the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from qsgd_ray.config import Formula
from qsgd_ray.optimizer._shards import local

# Coordinates of a chunk: four float32 arrays of 2 MiB stay in a shared L3 cache (2**16 to 2**22 were measured).
CHUNK = 2**19


class Piece(NamedTuple):
    """A stretch of one parameter with what its step needs.

    Attributes:
        theta: coordinates (n,), a view of the parameter.
        gradient: gradient (n,).
        m: first moment (n,).
        v: second moment (n,).
        n_steps: steps that the parameter has taken; a tensor where it lies on a GPU, so that nothing waits for it.
        group: the parameter's group with its settings.
    """

    theta: Tensor
    gradient: Tensor
    m: Tensor
    v: Tensor
    n_steps: int | Tensor
    group: dict[str, Any]

    def split(self, size: int = CHUNK) -> Iterator[Piece]:
        """Yield the piece in parts of at most `size` coordinates."""
        if self.theta.numel() <= size:
            yield self
            return
        parts = (x.split(size) for x in (self.theta, self.gradient, self.m, self.v))
        for theta, gradient, m, v in zip(*parts, strict=True):
            yield Piece(theta, gradient, m, v, self.n_steps, self.group)

    def part(self, start: int, stop: int) -> Piece:
        """Return the coordinates start ... stop - 1."""
        part = slice(start, stop)
        return Piece(self.theta[part], self.gradient[part], self.m[part], self.v[part], self.n_steps, self.group)


def local_piece(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Piece:
    """Return what this process holds of a parameter that has a gradient; without a state, with moments of zeros."""
    assert parameter.grad is not None
    theta, gradient = local(parameter.detach()).view(-1), local(parameter.grad.detach()).reshape(-1)
    if not state:
        return Piece(theta, gradient, torch.zeros_like(theta), torch.zeros_like(theta), 0, group)
    m, v = local(state["exp_avg"]).view(-1), local(state["exp_avg_sq"]).view(-1)
    return Piece(theta, gradient, m, v, steps_taken(state), group)


def steps_taken(state: dict[str, Any]) -> int | Tensor:
    """Return how many steps a parameter has taken; a tensor where that lies on a GPU."""
    step = state.get("step", 0)
    return step if isinstance(step, Tensor) and step.device.type != "cpu" else int(step)


def learning_rate(group: dict[str, Any]) -> float | Tensor:
    """Return the group's learning rate; a tensor only where a CUDA graph may capture the step and lr may change."""
    lr: float | Tensor = group["lr"]
    return lr.reshape(()) if group["capturable"] and isinstance(lr, Tensor) else float(lr)


def subtract_(targets: list[Tensor], q: list[Tensor], step_size: float | Tensor) -> None:
    """Subtract step_size * q from each target in place."""
    if isinstance(step_size, Tensor):
        torch._foreach_sub_(targets, torch._foreach_mul(q, step_size))
    elif step_size != 0:
        torch._foreach_add_(targets, q, alpha=-step_size)


def adam_step(pieces: Iterable[Piece], formula: Formula) -> None:
    """Take one step of each piece in place, with its group's settings. The parameters' step counts stay as they are.

    `adamw`: torch's own kernel, as the group chose it. `paper`: Eq. 1 of arXiv 2511.01918 as printed.
    """
    batches: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        # Counts that are tensors go into torch's kernel as they are.
        n_steps = -1 if isinstance(piece.n_steps, Tensor) else piece.n_steps
        batches.setdefault((id(piece.group), n_steps), []).append(piece)
    for batch in batches.values():
        _paper_step(batch) if formula == "paper" else _adamw_step(batch)


def _adamw_step(pieces: list[Piece]) -> None:
    """Take AdamW's step of pieces that share a group and a step count."""
    group = pieces[0].group
    beta1, beta2 = group["betas"]
    # Copies, because the kernel adds 1 to them and the parameters' own counts stay.
    counts = [x.n_steps.clone() if isinstance(x.n_steps, Tensor) else torch.tensor(float(x.n_steps)) for x in pieces]
    adamw(
        [piece.theta for piece in pieces],
        [piece.gradient for piece in pieces],
        [piece.m for piece in pieces],
        [piece.v for piece in pieces],
        [],
        counts,
        foreach=group["foreach"],
        fused=group["fused"],
        capturable=group["capturable"],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=group["maximize"],
    )


def _paper_step(pieces: list[Piece]) -> None:
    """Take the step theta - lr * m / sqrt(v + eps) (Eq. 1): no bias correction, eps inside the root."""
    group = pieces[0].group
    beta1, beta2 = group["betas"]
    lr = learning_rate(group)
    for theta, gradient, m, v, *_ in pieces:
        g = -gradient if group["maximize"] else gradient
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        theta.mul_(1 - lr * group["weight_decay"])
        step = (v + group["eps"]).sqrt_()
        subtract_([theta], [torch.div(m, step, out=step)], lr)


def adam_direction(
    gradient: Tensor, m: Tensor, v: Tensor, n_steps: int | Tensor, group: dict[str, Any], formula: Formula
) -> Tensor:
    """Return Adam's direction if its moments were fed this gradient; the moments themselves stay as they are.

    m_hat / (sqrt(v_hat) + eps), or m / sqrt(v + eps) in the formula `paper`: a new tensor as long as `gradient`.
    `n_steps` counts the steps that went into `m` and `v`.
    """
    beta1, beta2 = group["betas"]
    g = -gradient if group["maximize"] else gradient
    m = torch.lerp(m, g.to(m.dtype), 1 - beta1)
    v = torch.mul(v, beta2).addcmul_(g, g, value=1 - beta2)
    if formula == "paper":
        return m.div_(v.add_(group["eps"]).sqrt_())
    n_steps = n_steps + 1
    return m.div_(v.div_(1 - beta2**n_steps).sqrt_().add_(group["eps"])).div_(1 - beta1**n_steps)
