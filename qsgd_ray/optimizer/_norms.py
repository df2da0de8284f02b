"""Measure |lambda * Q| and |Adam's direction| at sampled steps, and keep their means.

One step in `telemetry_every` is sampled: it fills a `StepNorms`, whose squares go into `NormMeans`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors
from torch.nn import functional as F

from qsgd_ray.config import Formula
from qsgd_ray.optimizer._adam import Piece, local_piece, steps_taken
from qsgd_ray.optimizer._one_pass import direction_squares
from qsgd_ray.optimizer._shards import local

# Coordinates of a part where memory is only read: 256 KiB of float32, which malloc reuses without asking the system.
_NORM_CHUNK = 2**16
# Parameters of at most so many coordinates are measured together, at most so many in one batch.
_SMALL, _BATCH = 2**14, 64


class StepNorms:
    """Norms of one sampled step, each list in parts whose squares add up.

    Attributes:
        perturbation: for each parameter group, |lambda * Q| of its parts.
        adam: for each parameter group, |Adam's direction| of its parts.
        measured: ids of the parameters whose direction is in `adam` already.
    """

    def __init__(self, n_groups: int) -> None:
        self.perturbation: list[list[Tensor]] = [[] for _ in range(n_groups)]
        self.adam: list[list[Tensor]] = [[] for _ in range(n_groups)]
        self.measured: set[int] = set()

    def squares(self, device: torch.device) -> Tensor:
        """Return the squares of both norms of each group: (2, groups) float64 on `device`. Nothing waits for a GPU."""
        zero = torch.zeros((), dtype=torch.float64, device=device)
        rows = [
            [torch.stack(parts).to(torch.float64).square().sum() if parts else zero for parts in groups]
            for groups in (self.perturbation, self.adam)
        ]
        return torch.stack([torch.stack(row) for row in rows])


class NormMeans:
    """Running means of the norms of sampled steps; their size does not grow with the number of steps."""

    def __init__(self) -> None:
        self.n = 0
        self._model = torch.zeros(2, dtype=torch.float64)
        self._groups = torch.zeros(2, 0, dtype=torch.float64)
        self._n_of_group = torch.zeros(0, dtype=torch.float64)  # groups may be added between steps

    def add(self, squares: Tensor) -> None:
        """Add one step, given as `StepNorms.squares` returns it."""
        new = squares.shape[1] - self._groups.shape[1]
        self._groups = F.pad(self._groups, (0, new)).to(squares.device) + squares.sqrt()
        self._model = self._model.to(squares.device) + squares.sum(1).sqrt()
        self._n_of_group = F.pad(self._n_of_group, (0, new)) + 1
        self.n += 1

    def state(self) -> dict[str, Any]:
        """Return plain numbers from which `from_state` restores these means."""
        return {
            "n": self.n,
            "model": self._model.tolist(),
            "groups": self._groups.tolist(),
            "n_of_group": self._n_of_group.tolist(),
        }

    @staticmethod
    def from_state(state: dict[str, Any]) -> NormMeans:
        """Return the means that `state` described."""
        means = NormMeans()
        means.n = state["n"]
        means._model, means._groups, means._n_of_group = (
            torch.tensor(state[name], dtype=torch.float64) for name in ("model", "groups", "n_of_group")
        )
        return means

    def of_model(self) -> tuple[float, float]:
        """Return the means of |lambda * Q| and |Adam's direction| over the whole model; `n` must be at least 1."""
        perturbation, adam = (self._model / self.n).tolist()
        return perturbation, adam

    def of_groups(self) -> list[tuple[float, float]]:
        """Return the same two means for each parameter group."""
        rows = (self._groups.cpu() / self._n_of_group).T.tolist()
        return [(perturbation, adam) for perturbation, adam in rows]


def direction_norms(
    parameters: Iterable[Tensor],
    state: Mapping[Tensor, dict[str, Any]],
    group: dict[str, Any],
    formula: Formula,
    native: bool,
) -> list[Tensor]:
    """Return |Adam's direction| as the moments stand after a step, in parts; floats on the moments' device.

    Parameters without a gradient or without moments are left out. `native`: by the C++ kernel, where there is one.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None and state.get(parameter)]
    if native and all(local(parameter).is_contiguous() and not parameter.is_complex() for parameter in with_gradient):
        squares = direction_squares(
            [_piece(parameter, state[parameter], group) for parameter in with_gradient], formula
        )
        if squares is not None:
            return list(squares.sqrt().unbind())
    moments = [_moments(state[parameter], group) for parameter in with_gradient]
    return [_direction_norm(part, formula) for batch in _batched(moments) for part in _split(batch)]


def _piece(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Piece:
    piece = local_piece(parameter, state, group)
    return piece._replace(v=local(state["max_exp_avg_sq"]).view(-1)) if "max_exp_avg_sq" in state else piece


class _Moments(NamedTuple):
    """Moments of a parameter, or of several end to end; `n_steps` and `group` as in a `Piece`."""

    m: Tensor
    v: Tensor
    n_steps: int | Tensor
    group: dict[str, Any]


def _moments(state: dict[str, Any], group: dict[str, Any]) -> _Moments:
    v = state.get("max_exp_avg_sq", state["exp_avg_sq"])  # the former under amsgrad
    return _Moments(_dense(local(state["exp_avg"])), _dense(local(v)), steps_taken(state), group)


def _dense(x: Tensor) -> Tensor:
    """Return real numbers that lie one after the other; a complex one is two, as to torch's AdamW."""
    return (torch.view_as_real(x) if x.is_complex() else x).contiguous()


def _batched(moments: Iterable[_Moments]) -> Iterator[_Moments]:
    """Yield small moments of one step count and dtype end to end, in copies, and large ones as they are.

    A handful of operations a parameter take 2.3 ms for 30 parameters of 2,400 coordinates; in one batch they take 0.3.
    """
    small: dict[tuple[object, ...], list[_Moments]] = {}
    for each in moments:
        if isinstance(each.n_steps, Tensor) or each.m.numel() > _SMALL:
            yield each
        else:
            small.setdefault((each.n_steps, each.m.dtype), []).append(each)
    for alike in small.values():
        for start in range(0, len(alike), _BATCH):
            batch = alike[start : start + _BATCH]
            m, v = (_flatten_dense_tensors(list(field)) for field in list(zip(*batch, strict=True))[:2])
            yield _Moments(m, v, batch[0].n_steps, batch[0].group)


def _split(moments: _Moments) -> Iterator[_Moments]:
    for m, v in zip(*(field.view(-1).split(_NORM_CHUNK) for field in moments[:2]), strict=True):
        yield _Moments(m, v, moments.n_steps, moments.group)


def _direction_norm(moments: _Moments, formula: Formula) -> Tensor:
    """Return the norm of `adam_direction`, using one small tensor that stays in the cache from part to part."""
    m, v, n_steps, group = moments
    beta1, beta2 = group["betas"]
    if formula == "paper":
        work = torch.add(v, group["eps"]).sqrt_()
        return torch.linalg.vector_norm(torch.div(m, work, out=work))
    work = torch.sqrt(v).mul_((1 - beta2**n_steps) ** -0.5).add_(group["eps"])
    return torch.linalg.vector_norm(torch.div(m, work, out=work)).div_(1 - beta1**n_steps)
