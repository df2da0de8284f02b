"""What the perturbation did: norms of sampled steps in, their means out, for the model and for each parameter group."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Norms:
    """Of one sampled step: for each parameter group, |lambda * Q| and |Adam's direction| of its parts. `noted`: the
    ids of the parameters whose direction is among them."""

    def __init__(self, n_groups: int) -> None:
        self.perturbation: list[list[Tensor]] = [[] for _ in range(n_groups)]
        self.adam: list[list[Tensor]] = [[] for _ in range(n_groups)]
        self.noted: set[int] = set()

    def squares(self, device: torch.device) -> Tensor:
        """(2, groups) float64 on the device: the squares of both norms of each group; nothing waits for a GPU."""
        none = torch.zeros((), dtype=torch.float64, device=device)
        rows = [
            [torch.stack(parts).to(torch.float64).square().sum() if parts else none for parts in groups]
            for groups in (self.perturbation, self.adam)
        ]
        return torch.stack([torch.stack(row) for row in rows])


class Means:
    """Norms of the steps sampled so far, added up; as large after a thousand as after one."""

    def __init__(self) -> None:
        self.n = 0
        self._model = torch.zeros(2, dtype=torch.float64)
        self._groups = torch.zeros(2, 0, dtype=torch.float64)
        self._n_of_group = torch.zeros(0, dtype=torch.float64)  # groups may come later

    def add(self, squares: Tensor) -> None:
        """Those of one more step, as `Norms.squares` has them."""
        new = squares.shape[1] - self._groups.shape[1]
        self._groups = F.pad(self._groups, (0, new)).to(squares.device) + squares.sqrt()
        self._model = self._model.to(squares.device) + squares.sum(1).sqrt()
        self._n_of_group = F.pad(self._n_of_group, (0, new)) + 1
        self.n += 1

    def state(self) -> dict[str, Any]:
        """Plain numbers, from which `from_state` makes the same means."""
        return {
            "n": self.n,
            "model": self._model.tolist(),
            "groups": self._groups.tolist(),
            "n_of_group": self._n_of_group.tolist(),
        }

    @staticmethod
    def from_state(state: dict[str, Any]) -> Means:
        means = Means()
        means.n = state["n"]
        means._model, means._groups, means._n_of_group = (
            torch.tensor(state[name], dtype=torch.float64) for name in ("model", "groups", "n_of_group")
        )
        return means

    def of_model(self) -> tuple[float, float]:
        """|lambda * Q| and |Adam's direction|."""
        perturbation, adam = (self._model / self.n).tolist()
        return perturbation, adam

    def of_groups(self) -> list[tuple[float, float]]:
        """The same of each parameter group."""
        rows = (self._groups.cpu() / self._n_of_group).T.tolist()
        return [(perturbation, adam) for perturbation, adam in rows]


class GroupNorms(NamedTuple):
    """Means over the sampled steps. `ratio`: of the two; None where Adam's direction is 0."""

    perturbation_norm: float
    adam_step_norm: float
    ratio: float | None


class Telemetry(NamedTuple):
    """What the optimizer did.

    The norms are Euclidean over the whole model, and means over the sampled steps since the last call (None: no step
    was sampled). Totals since construction: `circuit_wait_s`, seconds that circuits were waited for; `circuit_s`,
    seconds that engines worked on those collected (None: they do not tell); `n_circuits` asked for. `groups`: the norms
    of each parameter group.
    """

    perturbation_norm: float | None
    adam_step_norm: float | None
    circuit_wait_s: float
    circuit_s: float | None
    n_circuits: int
    n_samples: int
    groups: tuple[GroupNorms, ...] = ()

    @staticmethod
    def of(means: Means, circuit_wait_s: float, circuit_s: float | None, n_circuits: int) -> Telemetry:
        """These means."""
        if means.n == 0:
            return Telemetry(None, None, circuit_wait_s, circuit_s, n_circuits, 0)
        groups = tuple(GroupNorms(q, step, q / step if step else None) for q, step in means.of_groups())
        return Telemetry(*means.of_model(), circuit_wait_s, circuit_s, n_circuits, means.n, groups)
