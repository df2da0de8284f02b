"""Change lambda and the learning rate over a training: shapes and steps in; factors of the first value out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from torch.optim import Optimizer

from qsgd_ray.circuits.plain_numbers import whole_number
from qsgd_ray.config import LambdaShape
from qsgd_ray.config.workload import Decay
from qsgd_ray.optimizer.driven import DrivenOptimizer


class RateShape(NamedTuple):
    """The shape of the learning rate: up in a line during the warm-up, then constant or down to 0.

    Attributes:
        warmup_steps: steps of the warm-up, >= 0.
        decay: "constant", "linear" or "cosine".
        from_zero: True where the first step of a warm-up has the rate 0, as in transformers; False where it has the
            first of `warmup_steps` equal steps up.
    """

    warmup_steps: int
    decay: Decay | Literal["cosine"]
    from_zero: bool = True

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor, 0 to 1, of the learning rate; as transformers' schedules with a warm-up have it.

        Args:
            step: the step that is about to be taken, counted from 0.
            total_steps: steps of the whole training, >= 1; from there on a decay is at 0.
        """
        if step < self.warmup_steps:
            return (step + (not self.from_zero)) / self.warmup_steps
        if self.decay == "constant":
            return 1.0
        left = max(0.0, (total_steps - step) / max(1, total_steps - self.warmup_steps))
        return left if self.decay == "linear" else (1 - math.cos(math.pi * left)) / 2


CONSTANT_RATE = RateShape(0, "constant")


class RateSchedule:
    """Let the learning rate of each parameter group follow its own shape, as `LambdaSchedule` lets lambda.

    Before step t, counted from 0, each group's `lr` is its value at construction times `RateShape.factor(t, T)`.

    Args:
        groups: parameter groups of any optimizers; construction reads their `lr` and sets that of the first step.
        shapes: the shape of each group's rate.
        total_steps: T, steps of the whole training, >= 1.

    Example:
        >>> import torch
        >>> from qsgd_ray.optimizer.schedules import RateSchedule, RateShape
        >>> groups = torch.optim.SGD([torch.nn.Parameter(torch.ones(4))], lr=0.5).param_groups
        >>> schedule = RateSchedule(groups, [RateShape(0, "linear")], total_steps=4)
        >>> schedule.step()
        >>> groups[0]["lr"]
        0.375
    """

    def __init__(self, groups: Sequence[dict[str, Any]], shapes: Sequence[RateShape], total_steps: int) -> None:
        self.groups, self.shapes = list(groups), list(shapes)
        self.total_steps = whole_number("total_steps", total_steps, 1)
        self.steps = 0
        self.first = [float(group["lr"]) for group in groups]
        self._set()

    def step(self) -> None:
        """Set each group's `lr` for the next step; call it after the optimizer's `step`."""
        self.steps += 1
        self._set()

    def _set(self) -> None:
        for group, shape, first in zip(self.groups, self.shapes, self.first, strict=True):
            group["lr"] = first * shape.factor(self.steps, self.total_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which `load_state_dict` goes on; the groups' rates are in the optimizer's."""
        return {"steps": self.steps, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; load the optimizer's own beside it.

        Args:
            state: what `state_dict` returned.

        Raises:
            KeyError: the state lacks `steps` or `first`.
        """
        self.steps, self.first = int(state["steps"]), list(state["first"])


class LambdaSchedule:
    """Let lambda fall over a training, as torch's schedulers let the learning rate fall.

    After t steps each parameter group's `lambda_` is its value at construction times f(t), with T = `total_steps`:

        constant:  f(t) = 1
        linear:    f(t) = 1 - t / T
        cosine:    f(t) = (1 + cos(pi t / T)) / 2

    From T on `linear` and `cosine` are 0, and the optimizer is torch.optim.AdamW bit for bit.

    Args:
        optimizer: a `SuperpositionalAdamW`, or any other with a perturbation around it; every group has `lambda_`,
            which construction reads and leaves as it is.
        shape: "constant", "linear" or "cosine".
        total_steps: T, steps of the optimizer in the whole training, >= 1.

    Attributes:
        optimizer: the optimizer whose groups are changed.
        shape: as given.
        total_steps: as given.
        steps: t, the calls of `step` so far, also those before a `load_state_dict`.
        first: `lambda_` of each parameter group at construction, in the order of the groups.

    Raises:
        ValueError: another shape, a total below 1, or an optimizer without lambda_.

    Example:
        >>> import torch
        >>> from qsgd_ray import LambdaSchedule, SuperpositionalAdamW
        >>> weight = torch.nn.Parameter(torch.ones(4))
        >>> optimizer = SuperpositionalAdamW([weight], lambda_=0.5)
        >>> schedule = LambdaSchedule(optimizer, "linear", total_steps=4)
        >>> for _ in range(3):
        ...     weight.grad = torch.ones(4)
        ...     optimizer.step()
        ...     schedule.step()
        >>> optimizer.param_groups[0]["lambda_"]
        0.125
    """

    def __init__(self, optimizer: Optimizer | DrivenOptimizer, shape: LambdaShape, total_steps: int) -> None:
        if shape not in get_args(LambdaShape):
            raise ValueError(f"schedule: got {shape!r}; allowed: {', '.join(get_args(LambdaShape))}")
        total_steps = whole_number("total_steps", total_steps, 1)
        if any("lambda_" not in group for group in optimizer.param_groups):
            raise ValueError(
                f"optimizer: got {type(optimizer).__name__} without lambda_; allowed: SuperpositionalAdamW"
            )
        self.optimizer, self.shape, self.total_steps = optimizer, shape, total_steps
        self.steps = 0
        self.first = [float(group["lambda_"]) for group in optimizer.param_groups]

    def step(self) -> None:
        """Set each group's `lambda_` for the next step; call it after the optimizer's `step`.

        Raises:
            ValueError: the optimizer has got another number of parameter groups since the schedule was constructed.
        """
        if len(self.optimizer.param_groups) != len(self.first):
            raise ValueError(
                f"schedule: got an optimizer of {len(self.optimizer.param_groups)} parameter groups; allowed: the "
                f"{len(self.first)} with which it began"
            )
        self.steps += 1
        for group, first in zip(self.optimizer.param_groups, self.first, strict=True):
            group["lambda_"] = first * _factor(self.shape, self.steps, self.total_steps)

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which `load_state_dict` goes on; the groups' lambda_ are in the optimizer's."""
        return {"steps": self.steps, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; load the optimizer's own beside it.

        Shape and total are not in the state: construct the schedule with the same ones. The groups' `lambda_` change
        at the next `step`, not here.

        Args:
            state: what `state_dict` returned.

        Raises:
            KeyError: the state lacks `steps` or `first`.
        """
        self.steps, self.first = int(state["steps"]), list(state["first"])


def _factor(shape: LambdaShape, step: int, total_steps: int) -> float:
    """Return the factor of lambda after `step` steps, 1 after none."""
    left = max(0.0, 1 - step / total_steps)
    match shape:
        case "constant":
            return 1.0
        case "linear":
            return left
        case "cosine":
            return (1 - math.cos(math.pi * left)) / 2
