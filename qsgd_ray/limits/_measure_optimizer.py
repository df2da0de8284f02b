"""Seconds of an optimizer's step over numbers of parameters: a curve and its missing sizes in, their rows out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.bench.timing import interleaved, one_thread
from qsgd_ray.config import Limits, OptimizerCurve, Perturbation
from qsgd_ray.limits._timing import peak_bytes, spread
from qsgd_ray.limits.rows import Row, Size
from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer.coordinates import coordinates

# Both optimizers share the parameters: a step so short leaves them as they are, and circuits asked ahead stay valid.
LEARNING_RATE = 1e-20
WARM_STEPS = 2
ADAMW = "AdamW"
# Fewer than measure.PASSES: parameters and moments are made anew in each.
MODEL_PASSES = 5


def measure(limits: Limits, curve: OptimizerCurve, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """Each size's row as soon as it is measured for the last time; made anew each time, as all would not fit at once.

    The curve's budget goes to the sizes alike.
    """
    seconds: dict[Size, dict[str, list[float]]] = {size: {} for size in sizes}
    for number in range(MODEL_PASSES):
        for size in sizes:
            assert isinstance(size, int)
            with one_thread():
                case = _case(curve, size, limits.seed)
                steps = {name: optimizer.step for name, optimizer in case.optimizers.items()}
                peak = peak_bytes(steps[case.engine])
                for name, found in interleaved(steps, limits.budget_s / len(sizes) / MODEL_PASSES).items():
                    seconds[size].setdefault(name, []).extend(found)
            if number == MODEL_PASSES - 1:
                row = case.row | {"peak_bytes": peak, **spread(seconds[size][case.engine])}
                if case.engine != ADAMW:
                    row["beside_s"] = spread(seconds[size][ADAMW])["low_s"]
                yield size, row
            del case, steps  # before the next is made


class Case(NamedTuple):
    """One size: `row` without what is measured; `optimizers` by name, `engine` the one that the curve is about."""

    row: Row
    optimizers: dict[str, Any]
    engine: str


def _case(curve: OptimizerCurve, n_parameters: int, seed: int) -> Case:
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
        blocks = coordinates(sizes, curve.scope, curve.n_qubits)
        row |= {
            "scope": curve.scope,
            "n_qubits": curve.n_qubits,
            "depth": perturbation.depth,
            "entangle": perturbation.entangle,
            "n_circuits": sum(map(len, blocks)) if curve.source == "circuit" else None,
        }
    for optimizer in optimizers.values():
        for _ in range(WARM_STEPS):
            optimizer.step()
        optimizer.state.update(adamw.state)  # the same memory for both: it is not equally fast everywhere
    return Case(row, optimizers, list(optimizers)[-1])


def _parameters(n_parameters: int, n_tensors: int, seed: int) -> list[Tensor]:
    """Of the sizes that a language model has: standard deviation 0.02, gradients of 0.001, float32."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for part in torch.arange(n_tensors + 1).mul(n_parameters).div(n_tensors, rounding_mode="floor").diff().tolist():
        parameter = torch.empty(part).normal_(std=0.02, generator=generator).requires_grad_()
        parameter.grad = torch.empty(part).normal_(std=1e-3, generator=generator)
        found.append(parameter)
    return found
