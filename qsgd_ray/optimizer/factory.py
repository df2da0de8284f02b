"""Construct the optimizer of an arm: its settings and parameters in; AdamW, the perturbed one or any other out."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch

from qsgd_ray import config
from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.config.errors import one_line
from qsgd_ray.config.optimizer import class_of
from qsgd_ray.optimizer._around import Around
from qsgd_ray.optimizer._groups import parameters_of
from qsgd_ray.optimizer.adamw import SuperpositionalAdamW
from qsgd_ray.optimizer.driven import DrivenOptimizer

# One step in so many is sampled (protocol, rule 13): it takes 1.2 ms more, where a step of the text task takes 8.
TELEMETRY_EVERY = 32


def make_optimizer(
    arm: config.Arm,
    parameters: Iterable[Any],
    circuits: CircuitBackend | None,
    seed: int = 0,
    telemetry_every: int = TELEMETRY_EVERY,
) -> torch.optim.Optimizer:
    """Return the optimizer of an arm without one of its own: torch.optim.AdamW itself where it has no perturbation.

    Arms with and without a perturbation use the fused kernel, the quickest on one CPU thread for small models (28
    tensors, 73,000 parameters: 0.44 ms a step, 0.78 foreach, 1.5 for-loop; torch 2.13, two-core machine).

    Args:
        arm: the way to train, without spaces. `perturbation.schedule` is left to `LambdaSchedule`.
        parameters: parameters, named parameters or parameter groups.
        circuits: backend that answers the circuits of the sources circuit, sampled and noisy; None simulates them in
            this process.
        seed: names the random draws of the perturbation.
        telemetry_every: one step in so many is sampled for the telemetry, >= 1; default 32.

    Returns:
        A `SuperpositionalAdamW`, or a `torch.optim.AdamW` for an arm without a perturbation.

    Raises:
        StudyError: a field of the arm is a space, or the arm names an optimizer (`make_driven_optimizer`).
        ValueError: parameters that `SuperpositionalAdamW` refuses.
        CircuitError: the source needs Aer, which is not installed.

    Example:
        >>> import torch
        >>> from qsgd_ray import Arm, Perturbation
        >>> from qsgd_ray.optimizer import make_optimizer
        >>> weight = torch.nn.Parameter(torch.ones(4))
        >>> type(make_optimizer(Arm(name="adamw"), [weight], circuits=None)).__name__
        'AdamW'
        >>> arm = Arm(name="sine", learning_rate=3e-3, perturbation=Perturbation(source="sine"))
        >>> type(make_optimizer(arm, [weight], circuits=None)).__name__
        'SuperpositionalAdamW'
    """
    _require_resolved(arm)
    if arm.optimizer is not None:
        raise config.StudyError(
            f"arm {arm.name}: got the optimizer {arm.optimizer.name}; allowed: make_driven_optimizer"
        )
    settings: dict[str, Any] = {
        "lr": arm.learning_rate,
        "betas": arm.betas,
        "eps": arm.eps,
        "weight_decay": arm.weight_decay,
        "fused": True,
    }
    if arm.perturbation is None:
        return torch.optim.AdamW(parameters, **settings)
    return SuperpositionalAdamW.from_settings(
        parameters, arm.perturbation, seed=seed, circuits=circuits, telemetry_every=telemetry_every, **settings
    )


def make_driven_optimizer(
    arm: config.Arm,
    model: torch.nn.Module,
    circuits: CircuitBackend | None,
    seed: int = 0,
    telemetry_every: int = TELEMETRY_EVERY,
) -> DrivenOptimizer:
    """Return the optimizers that an arm names, over the trained parameters of a model.

    Args:
        arm: the way to train, without spaces, with an `optimizer`. Schedules are left to `RateSchedule` and
            `LambdaSchedule`.
        model: its parameters that require a gradient are trained.
        circuits: backend that answers the circuits of a perturbation; None simulates them in this process.
        seed: names the random draws of optimizers and perturbation.
        telemetry_every: one step in so many is sampled for the telemetry, >= 1; default 32.

    Returns:
        The optimizers behind one interface, in the order of `arm.optimizer.members`, a parameter group each.

    Raises:
        StudyError: a field of the arm is a space, a class is not installed, a group has no parameter or a parameter two
            groups, or a class refuses its keywords or these parameters; one line.
        CircuitError: the source needs Aer, which is not installed.

    Example:
        >>> import torch
        >>> from qsgd_ray import Arm, Optimizer
        >>> from qsgd_ray.optimizer import make_driven_optimizer
        >>> arm = Arm(name="sgd", optimizer=Optimizer("sgd", lr=0.1))
        >>> make_driven_optimizer(arm, torch.nn.Linear(4, 2), circuits=None).param_groups[0]["lr"]
        0.1
    """
    _require_resolved(arm)
    assert arm.optimizer is not None
    field = f"arms.{arm.name}.optimizer"
    optimizers = []
    for name, parameters in parameters_of(arm.optimizer, model, field).items():
        optimizer = dict(arm.optimizer.members)[name]
        optimizers.append(_constructed(optimizer, parameters, f"{field}.{name}".rstrip(".")))
    try:
        driven = DrivenOptimizer(optimizers, seed)
    except ValueError as error:
        raise config.StudyError(f"{field}: {error}") from None
    if arm.perturbation is None:
        return driven
    around = Around(driven.param_groups, arm.perturbation, circuits, seed, telemetry_every)
    return DrivenOptimizer(optimizers, seed, around)


def require_scalable(arm: config.Arm, optimizer: DrivenOptimizer, scales_loss: bool) -> None:
    """Refuse an optimizer that evaluates the model itself where gradients are scaled, which it would not know of.

    Args:
        arm: names the field.
        optimizer: the arm's.
        scales_loss: True where the workload's loss is scaled (float16).

    Raises:
        StudyError: it is one.
    """
    if scales_loss and optimizer.kind != "plain":
        raise config.StudyError(
            f"arms.{arm.name}.optimizer: got one that evaluates the model itself, with float16, whose gradients are "
            "scaled; allowed: with bfloat16 or float32"
        )


def _constructed(optimizer: config.Optimizer, parameters: list[torch.Tensor], field: str) -> torch.optim.Optimizer:
    """Return the optimizer over these parameters; StudyError with the words of the class where it refuses."""
    keywords = {
        name: partial(class_of(value), **value.settings) if isinstance(value, config.Optimizer) else value
        for name, value in optimizer.settings.items()
    }
    make: Any = class_of(optimizer)
    try:
        return cast(torch.optim.Optimizer, make(parameters, **keywords))
    except config.StudyError:
        raise
    except Exception as error:  # the class is another's: whatever it raises is what it thinks of its arguments
        hint = _ONLY_MATRICES if "2D" in str(error) else ""
        raise config.StudyError(f"{field}: {optimizer.name} refuses: {one_line(error, limit=150)}{hint}") from None


# A class for matrices alone, such as torch's Muon, says so in this way.
_ONLY_MATRICES = "; allowed: Groups(matrices=Optimizer(...), rest=Optimizer(...))"


def _require_resolved(arm: config.Arm) -> None:
    unresolved = arm.spaces()
    if unresolved:
        raise config.StudyError(f"arm {arm.name}: got a space in {', '.join(unresolved)}; allowed: a resolved arm")
