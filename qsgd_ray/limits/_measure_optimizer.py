"""Measure the seconds of an optimizer's step over growing numbers of parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.bench.timing import interleaved, one_thread
from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import available_bytes, format_bytes
from qsgd_ray.config import Limits, OptimizerCurve, Perturbation
from qsgd_ray.limits._timing import peak_bytes, spread
from qsgd_ray.limits.rows import Row, Size
from qsgd_ray.optimizer import SuperpositionalAdamW, count_blocks

# Both optimizers share the parameters: a step so short leaves them as they are, and circuits submitted ahead stay
# valid.
LEARNING_RATE = 1e-20
WARM_STEPS = 2
ADAMW = "AdamW"
# Fewer than _timing.PASSES: parameters and moments are made anew in each.
MODEL_PASSES = 5


def measure(limits: Limits, curve: OptimizerCurve, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """Yield the row of each size as soon as its last pass is measured.

    Each pass makes the optimizers of a size anew, as all sizes would not fit at once. The sizes share the budget of the
    curve equally. CircuitMemoryError: a size does not fit into memory.
    """
    seconds: dict[Size, dict[str, list[float]]] = {size: {} for size in sizes}
    for number in range(MODEL_PASSES):
        for size in sizes:
            assert isinstance(size, int)
            with one_thread():
                case = _case(curve, size, limits.seed)
                steps = {name: optimizer.step for name, optimizer in case.optimizers.items()}
                peak = peak_bytes(steps[case.engine])
                for name, rounds_s in interleaved(steps, limits.budget_s / len(sizes) / MODEL_PASSES).items():
                    seconds[size].setdefault(name, []).extend(rounds_s)
            if number == MODEL_PASSES - 1:
                row = case.row | {"peak_bytes": peak, **spread(seconds[size][case.engine])}
                if case.engine != ADAMW:
                    row["beside_s"] = spread(seconds[size][ADAMW])["low_s"]
                yield size, row
            del case, steps  # before the next is made


class Case(NamedTuple):
    """One size of a curve.

    Attributes:
        row: its columns, without what is measured.
        optimizers: optimizers by name.
        engine: the name of the one that the curve is about.
    """

    row: Row
    optimizers: dict[str, Any]
    engine: str


def _require_memory(n_parameters: int) -> None:
    """Refuse a size whose parameters, gradients and two moments do not fit, before anything is allocated."""
    needed, there = 4 * torch.float32.itemsize * n_parameters, available_bytes()
    if needed > there:
        raise CircuitMemoryError(
            f"sizes: got {n_parameters:,} parameters, which need {format_bytes(needed)} with gradients and moments; "
            f"allowed: what fits into {there:,} bytes"
        )


def _case(curve: OptimizerCurve, n_parameters: int, seed: int) -> Case:
    _require_memory(n_parameters)
    parameters = _parameters(n_parameters, curve.n_tensors, seed)
    sizes = [parameter.numel() for parameter in parameters]
    adamw = torch.optim.AdamW(parameters, LEARNING_RATE, fused=True)
    row: Row = {
        "per": "step",
        "engine": ADAMW if curve.source is None else curve.source,
        "source": curve.source,
        "n_tensors": len(parameters),
        "n_parameters": sum(sizes),
    }
    optimizers: dict[str, Any] = {ADAMW: adamw}
    if curve.source is not None:
        perturbation = Perturbation(source=curve.source, scope=curve.scope, n_qubits=curve.n_qubits)
        ours = SuperpositionalAdamW(
            parameters, LEARNING_RATE, fused=True, lambda_=0.5, source=curve.source, scope=curve.scope,
            n_qubits=curve.n_qubits, telemetry_every=None,
        )  # fmt: skip
        optimizers["ours"] = ours
        row |= {
            "scope": curve.scope,
            "n_qubits": curve.n_qubits,
            "depth": perturbation.depth,
            "entangle": perturbation.entangle,
            "n_circuits": count_blocks(sizes, curve.scope, curve.n_qubits) if curve.source == "circuit" else None,
        }
    for optimizer in optimizers.values():
        for _ in range(WARM_STEPS):
            optimizer.step()
        optimizer.state.update(adamw.state)  # the same memory for both: it is not equally fast everywhere
    return Case(row, optimizers, list(optimizers)[-1])


def _parameters(n_parameters: int, n_tensors: int, seed: int) -> list[Tensor]:
    """Return parameters of the sizes that a language model has: deviation 0.02, gradients of 0.001, float32."""
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for part in torch.arange(n_tensors + 1).mul(n_parameters).div(n_tensors, rounding_mode="floor").diff().tolist():
        parameter = torch.empty(part).normal_(std=0.02, generator=generator).requires_grad_()
        parameter.grad = torch.empty(part).normal_(std=1e-3, generator=generator)
        parameters.append(parameter)
    return parameters
