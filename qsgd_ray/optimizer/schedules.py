"""How lambda and the learning rate change over a training: shapes and steps in; factors of the first value out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

from torch.optim import Optimizer

from qsgd_ray.config import LambdaShape
from qsgd_ray.config.workload import Decay


class RateShape(NamedTuple):
    """How the learning rate goes: up from 0 over `warmup_steps`, then constant or in a line down to 0."""

    warmup_steps: int
    decay: Decay

    def factor(self, step: int, total_steps: int) -> float:
        """Of the learning rate at step `step` (from 0); as transformers' get_linear_schedule_with_warmup."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.decay == "constant":
            return 1.0
        return max(0.0, (total_steps - step) / max(1, total_steps - self.warmup_steps))


CONSTANT_RATE = RateShape(0, "constant")


class LambdaSchedule:
    """Multiplies each group's lambda_ by a factor of the steps taken, as torch's schedulers do with lr.

    `shape`: "constant", 1; "linear", from 1 down to 0 at `total_steps`; "cosine", (1 + cos(pi step / total_steps)) / 2.
    From `total_steps` on the last two are 0. `step()` comes after the optimizer's. Each group's lambda_ as it is now is
    what is multiplied. ValueError in one line: another shape, no step at all, an optimizer without lambda_.
    """

    def __init__(self, optimizer: Optimizer, shape: LambdaShape, total_steps: int) -> None:
        if shape not in get_args(LambdaShape):
            raise ValueError(f"schedule: got {shape!r}; allowed: {', '.join(get_args(LambdaShape))}")
        if total_steps < 1:
            raise ValueError(f"total_steps: got {total_steps}; allowed: a whole number >= 1")
        if any("lambda_" not in group for group in optimizer.param_groups):
            raise ValueError(
                f"optimizer: got {type(optimizer).__name__} without lambda_; allowed: SuperpositionalAdamW"
            )
        self.optimizer, self.shape, self.total_steps = optimizer, shape, total_steps
        self.steps = 0
        self.first = [float(group["lambda_"]) for group in optimizer.param_groups]

    def step(self) -> None:
        """One optimizer step was taken."""
        if len(self.optimizer.param_groups) != len(self.first):
            raise ValueError(
                f"schedule: got an optimizer of {len(self.optimizer.param_groups)} parameter groups; allowed: the "
                f"{len(self.first)} with which it began"
            )
        self.steps += 1
        for group, first in zip(self.optimizer.param_groups, self.first, strict=True):
            group["lambda_"] = first * factor(self.shape, self.steps, self.total_steps)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` goes on from; the groups' lambda_ are in the optimizer's."""
        return {"steps": self.steps, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.first = int(state["steps"]), list(state["first"])


def factor(shape: LambdaShape, step: int, total_steps: int) -> float:
    """Of lambda after so many steps: 1 at none."""
    left = max(0.0, 1 - step / total_steps)
    match shape:
        case "constant":
            return 1.0
        case "linear":
            return left
        case "cosine":
            return (1 - math.cos(math.pi * left)) / 2
