"""Report what the optimizer did: the size of the perturbation beside Adam's step, and the cost of the circuits."""

from __future__ import annotations

from typing import NamedTuple


class GroupNorms(NamedTuple):
    """Norms of one parameter group, means over the sampled steps.

    Attributes:
        perturbation_norm: |lambda * Q|, >= 0.
        adam_step_norm: |Adam's direction|, >= 0; m_hat / (sqrt(v_hat) + eps), or m / sqrt(v + eps) in the formula
            `paper`. The learning rate multiplies both norms alike and is left out.
        ratio: the first over the second; None where the second is 0.
    """

    perturbation_norm: float
    adam_step_norm: float
    ratio: float | None


class Telemetry(NamedTuple):
    """The report of `SuperpositionalAdamW.telemetry`.

    The norms are Euclidean over the whole model, on whichever process it lies, and means over the steps that were
    sampled since the last call. Counts and seconds are totals of this process since the optimizer was constructed.

    Attributes:
        perturbation_norm: |lambda * Q|, >= 0; None where no step was sampled.
        adam_step_norm: |Adam's direction| (see `GroupNorms`), >= 0; None where no step was sampled.
        circuit_wait_s: seconds that steps spent submitting and waiting for circuits.
        circuit_s: seconds that engines worked on the circuits collected; None where a backend does not report it.
        n_circuits: circuits submitted.
        n_samples: steps that were sampled since the last call.
        groups: the norms of each parameter group; empty where no step was sampled.

    Example:
        >>> import torch
        >>> from qsgd_ray import SuperpositionalAdamW
        >>> weight = torch.nn.Parameter(torch.full((4,), 0.5))
        >>> optimizer = SuperpositionalAdamW([weight], lambda_=0.5, telemetry_every=1)
        >>> weight.grad = torch.ones(4)
        >>> optimizer.step()
        >>> report = optimizer.telemetry()  # sin(pi / 2) = 1, so that lambda * Q is 0.5 on four coordinates
        >>> round(report.perturbation_norm, 6), round(report.adam_step_norm, 6), report.n_samples
        (1.0, 2.0, 1)
    """

    perturbation_norm: float | None
    adam_step_norm: float | None
    circuit_wait_s: float
    circuit_s: float | None
    n_circuits: int
    n_samples: int
    groups: tuple[GroupNorms, ...] = ()
