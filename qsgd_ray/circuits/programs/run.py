"""Answers of compiled circuits that autograd follows to any order: by the C++ kernel, or in torch.

The second derivative, and any beyond, is exact by shifts of single rotations: an expectation value or a probability is
A + B cos a + C sin a of the angle of a rotation exp(-i a P / 2) with P P = 1, so df/da = (f(a + pi/2) - f(a - pi/2))/2
(Mitarai et al., arXiv 1803.00745), and an amplitude is cos(a/2) A + sin(a/2) B, so d psi/da = psi(a + pi)/2.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.circuits.derivatives import has_tangent
from qsgd_ray.circuits.programs import _native, _torch
from qsgd_ray.circuits.programs.program import Program

# Numbers of shifted circuits that are answered together.
_SHIFTED_NUMBERS = 2**22


def run(program: Program, values_bs: Tensor) -> Tensor:
    """Answer a program for each row of values.

    Args:
        program: the compiled circuit: s slots.
        values_bs: real floats, shape (b, s); float64 or float32, other dtypes become float32.

    Returns:
        Of "strings": (b, outputs); of "probabilities": (b, read); of "states": complex, (b, read). Of the values' dtype
        and device; autograd follows it back to the values, in reverse mode and to any order.

    Raises:
        CircuitMemoryError: there is no memory for the states.
    """
    if values_bs.dtype not in (torch.float32, torch.float64):
        values_bs = values_bs.float()
    if (torch.is_grad_enabled() and values_bs.requires_grad) or has_tangent(values_bs):
        answer: Tensor = _Answer.apply(values_bs, program)
        return answer
    return _execute(program, values_bs, None)[0]


def circuits_together(n_qubits: int) -> int:
    """Return the number of circuits that are simulated side by side in one thread, each with a state of its own."""
    return 1 if n_qubits >= _native.WIDE_FROM else 8


def _execute(program: Program, values_bs: Tensor, cotangent: Tensor | None) -> Any:
    """Return (answer, None), or with a cotangent (None, gradient)."""
    is_native = values_bs.is_cpu and type(values_bs) is Tensor and _native.is_available()
    engine: Any = _native if is_native else _torch
    return engine.execute(program, values_bs, cotangent, cotangent is None)


class _Answer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_bs: Tensor, program: Program) -> Tensor:
        ctx.program = program
        ctx.save_for_backward(values_bs)
        return _execute(program, values_bs.detach(), None)[0]

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        (values_bs,) = ctx.saved_tensors
        return _Gradient.apply(values_bs, cotangent, ctx.program), None


class _Gradient(torch.autograd.Function):
    """Gradient of Re<cotangent, answer> in the values, (b, s)."""

    @staticmethod
    def forward(ctx: Any, values_bs: Tensor, cotangent: Tensor, program: Program) -> Tensor:
        ctx.program = program
        ctx.save_for_backward(values_bs, cotangent)
        return _execute(program, values_bs.detach(), cotangent.detach())[1]

    @staticmethod
    def backward(ctx: Any, direction_bs: Tensor) -> Any:
        values_bs, cotangent = ctx.saved_tensors
        shifted, shifts = _shifted(ctx.program)
        # Along the direction each rotation's angle moves by this much.
        moved_br = direction_bs @ _torch.factors(ctx.program, direction_bs.device).to(direction_bs.dtype).T
        n_rotations, batch = moved_br.shape[1], len(values_bs)
        answer_slope, value_slope = torch.zeros_like(cotangent), torch.zeros_like(values_bs)
        rows = max(1, _SHIFTED_NUMBERS // max(1, batch * shifted.n_slots))
        for first in range(0, n_rotations, rows):
            indices = torch.arange(first, min(first + rows, n_rotations), device=values_bs.device)
            for shift, weight in shifts:
                offsets = torch.zeros((len(indices), n_rotations), dtype=values_bs.dtype, device=values_bs.device)
                offsets[torch.arange(len(indices)), indices] = shift
                values = torch.cat(
                    (
                        values_bs.expand(len(indices), *values_bs.shape),
                        offsets[:, None].expand(len(indices), batch, n_rotations),
                    ),
                    2,
                ).flatten(0, 1)
                factors = weight * moved_br[:, indices].T[..., None]  # (rotation, b, 1)
                answers = run(shifted, values).view(len(indices), batch, -1)
                answer_slope = answer_slope + (factors * answers).sum(0)
                cotangents = cotangent.expand(len(indices), *cotangent.shape).flatten(0, 1)
                slopes = _Gradient.apply(values, cotangents, shifted).view(len(indices), batch, -1)
                value_slope = value_slope + (factors * slopes[..., : values_bs.shape[1]]).sum(0)
        return value_slope, answer_slope, None


@lru_cache(maxsize=64)
def _shifted(program: Program) -> tuple[Program, tuple[tuple[float, float], ...]]:
    """Return the program with a slot more for each rotation, which shifts it; and the rule's shifts with weights."""
    rotations = tuple(
        rotation._replace(terms=(*rotation.terms, (program.n_slots + index, 1.0)))
        for index, rotation in enumerate(program.rotations)
    )
    rule = ((math.pi, 0.5),) if program.reading.kind == "states" else ((math.pi / 2, 0.5), (-math.pi / 2, -0.5))
    return replace(program, n_slots=program.n_slots + len(rotations), rotations=rotations), rule
