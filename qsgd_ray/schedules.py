"""How lambda changes over a training: an optimizer and a shape in; every group's lambda_ moved, a step at a time."""

from __future__ import annotations

import math
from typing import Any, get_args

from torch.optim import Optimizer

from qsgd_ray.config import LambdaShape


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
