"""What the perturbation did: norms of sampled steps in, their means out, for the model and for each parameter group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qsgd_ray.shards import Ranks


class Norms:
    """Of one sampled step: for each parameter group, |lambda * Q| and |Adam's direction| of its parts."""

    def __init__(self, n_groups: int) -> None:
        self.perturbation: list[list[Tensor]] = [[] for _ in range(n_groups)]
        self.adam: list[list[Tensor]] = [[] for _ in range(n_groups)]

    def sum_over(self, ranks: Ranks, device: torch.device) -> None:
        """From what each process holds of the model to the whole of it, on all of them; `device`: of the
        parameters."""
        both = (self.perturbation, self.adam)
        squares = torch.tensor([[_together(own) ** 2 for own in norms] for norms in both], dtype=torch.float64)
        for norms, summed in zip(both, ranks.sum_(squares.to(device)), strict=True):
            norms[:] = [[norm] for norm in summed.sqrt()]


class GroupNorms(NamedTuple):
    """Means over the sampled steps. `ratio`: of the two; None where Adam's direction is 0."""

    perturbation_norm: float
    adam_step_norm: float
    ratio: float | None


class Telemetry(NamedTuple):
    """What the optimizer did. The norms are Euclidean over the whole model, and means over the sampled steps since the
    last call (None: no step was sampled); `circuit_wait_s` and `n_circuits` are totals since construction. `groups`:
    the norms of each parameter group."""

    perturbation_norm: float | None
    adam_step_norm: float | None
    circuit_wait_s: float
    n_circuits: int
    n_samples: int
    groups: tuple[GroupNorms, ...] = ()

    @staticmethod
    def of(sampled: Sequence[Norms], circuit_wait_s: float, n_circuits: int) -> Telemetry:
        """The means of these steps."""
        if not sampled:
            return Telemetry(None, None, circuit_wait_s, n_circuits, 0)
        perturbation = [[_together(group) for group in norms.perturbation] for norms in sampled]
        adam = [[_together(group) for group in norms.adam] for norms in sampled]
        groups = tuple(
            GroupNorms(q, step, q / step if step else None)
            for q, step in zip(_means(perturbation), _means(adam), strict=True)
        )
        (q,), (step,) = (_means([[math.hypot(*groups)] for groups in norms]) for norms in (perturbation, adam))
        return Telemetry(q, step, circuit_wait_s, n_circuits, len(sampled), groups)


def _together(norms: list[Tensor]) -> float:
    """The Euclidean norm of the whole from those of its parts."""
    return float(torch.linalg.vector_norm(torch.stack(norms).to(torch.float64))) if norms else 0.0


def _means(rows: list[list[float]]) -> list[float]:
    """Of each column; rows may lack the groups that came later."""
    columns = max(map(len, rows))
    return [sum(row[c] for row in rows if c < len(row)) / sum(c < len(row) for row in rows) for c in range(columns)]
