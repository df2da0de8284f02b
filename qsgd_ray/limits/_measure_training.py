"""Measure a training step of the text task over sequence lengths, and train the weights whose signal is studied.

The cost of circuits is judged beside this step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.bench.timing import one_thread
from qsgd_ray.config import Limits, TextTask
from qsgd_ray.limits._timing import in_turns, spread
from qsgd_ray.limits.rows import Row, Size
from qsgd_ray.workloads import make_workload

LEARNING_RATE = 1e-3  # the paper's
BETAS, EPS = (0.9, 0.999), 1e-8


class Trained(NamedTuple):
    """Every coordinate of the matrices of a model, flat.

    Attributes:
        theta: values.
        gradient: gradients of one more step.
        adam: directions of the next step of Adam.
    """

    theta: Tensor
    gradient: Tensor
    adam: Tensor


def measure(limits: Limits, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """Yield the rows of all lengths, their steps in turns, on one thread."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        stepping = {str(size): _stepping(int(str(size)), limits.seed) for size in sizes}
        seconds = in_turns({name: step for name, (step, _) in stepping.items()}, limits.budget_s)
    for size in sizes:
        name = str(size)
        model = stepping[name][1]
        yield (
            size,
            {
                "per": "step",
                "engine": "AdamW",
                "n_tokens": size,
                "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
                "n_tensors": len(list(model.parameters())),
                **spread(seconds[name]),
            },
        )


def _stepping(length: int, seed: int) -> tuple[Callable[[], None], Any]:
    """Return a call that takes a training step, and its model."""
    workload = make_workload(TextTask(length=length), device="cpu")
    model = workload.make_model(seed)
    batches = list(workload.batches(seed, 1, 0, 1))
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, EPS, fused=True)
    taken = 0

    def step() -> None:
        nonlocal taken
        optimizer.zero_grad()
        workload.backward(model, batches[taken % len(batches)], world_size=1)
        optimizer.step()
        taken += 1

    return step, model


def trained(seed: int, steps: int) -> Trained:
    """Return the model of the text task after `steps` steps, with the gradient of one more."""
    with one_thread(), torch.random.fork_rng(devices=[]):
        workload = make_workload(TextTask(), device="cpu")
        model = workload.make_model(seed)
        batches = list(workload.batches(seed, 1, 0, 1))
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, EPS)
        for number in range(steps + 1):
            optimizer.zero_grad()
            workload.backward(model, batches[number % len(batches)], world_size=1)
            # After the last round: the weights that `steps` steps have left, and the gradient of one more.
            before = [parameter.detach().clone() for parameter in model.parameters()]
            optimizer.step()
    columns: list[list[Tensor]] = [[], [], []]
    for parameter, value in zip(model.parameters(), before, strict=True):
        if parameter.ndim < 2:  # biases of 0 and norms of 1 have no signal at all: sin(0) = sin(pi) = 0
            continue
        state = optimizer.state[parameter]
        t = float(state["step"])
        m, v = state["exp_avg"] / (1 - BETAS[0] ** t), state["exp_avg_sq"] / (1 - BETAS[1] ** t)
        assert parameter.grad is not None
        for column, values in zip(columns, (value, parameter.grad, m / (v.sqrt() + EPS)), strict=True):
            column.append(values.detach().double().reshape(-1))
    return Trained(*(torch.cat(column) for column in columns))
