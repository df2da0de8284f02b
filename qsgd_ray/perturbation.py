"""The signals s in Q_i = s_i(theta) * g_i, one protocol for all: blocks of coordinates in, one number a coordinate out.

arXiv 2511.01918, Eq. 2, is s_i = sin(pi*theta_i); a circuit of depth 1 without entanglement gives the same number.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from qsgd_ray import config
from qsgd_ray.circuits.auto import AutoBackend
from qsgd_ray.circuits.backends import Answered, CircuitBackend, Pending
from qsgd_ray.circuits.kinds import Entangle, Rotation
from qsgd_ray.circuits.spec import CircuitSpec


class Signal(Protocol):
    """A source of s."""

    def submit(self, theta_bn: Tensor) -> Pending:
        """Ask for s at blocks of coordinates (batch, n); the Pending's result is (batch, n) float64 on the CPU."""
        ...


class SineSignal:
    """s_i = sin(pi*theta_i): Eq. 2, in closed form."""

    def submit(self, theta_bn: Tensor) -> Pending:
        return Answered(torch.sin(math.pi * _float64(theta_bn)))


class ZeroSignal:
    """s_i = 0: the control."""

    def submit(self, theta_bn: Tensor) -> Pending:
        return Answered(torch.zeros(theta_bn.shape, dtype=torch.float64))


class CircuitSignal:
    """s = <Z_i> of the circuit whose rotations turn by -pi*theta_i, +pi*theta_i and so on, one circuit a block.

    A block narrower than the others is a circuit of that many qubits. A block with a coordinate that is not finite has
    no circuit: its s is nan, as sin(pi*nan) is, so that a diverged run looks diverged whatever the source.
    """

    def __init__(
        self,
        backend: CircuitBackend,
        depth: int = 2,
        entangle: Entangle = "chain",
        rotations: tuple[Rotation, ...] = ("ry", "rz"),
    ) -> None:
        self.backend = backend
        self._spec = CircuitSpec(1, depth, entangle, rotations)

    def spec(self, width: int) -> CircuitSpec:
        """The circuit of a block of `width` coordinates."""
        return replace(self._spec, n_qubits=width)

    def submit(self, theta_bn: Tensor) -> Pending:
        theta_bn = _float64(theta_bn)
        spec = self.spec(theta_bn.shape[1])
        # The sum of finite numbers may overflow, so it only says when to look closer.
        if theta_bn.sum().isfinite():
            return self.backend.submit(spec, circuit_angles(spec, theta_bn))
        finite_b = theta_bn.isfinite().all(1)
        s_bn = torch.full(theta_bn.shape, math.nan, dtype=torch.float64)
        if not finite_b.any():
            return Answered(s_bn)
        return _Partly(s_bn, finite_b, self.backend.submit(spec, circuit_angles(spec, theta_bn[finite_b])))


class _Partly:
    """nan, except the blocks that were asked."""

    def __init__(self, s_bn: Tensor, asked_b: Tensor, pending: Pending) -> None:
        self._s_bn = s_bn
        self._asked_b = asked_b
        self._pending = pending

    def result(self) -> Tensor:
        self._s_bn[self._asked_b] = self._pending.result()
        return self._s_bn


def circuit_angles(spec: CircuitSpec, theta_bn: Tensor) -> Tensor:
    """The angles of a block, the same in every layer: (batch, depth, n, len(rotations)) float64.

    The first rotation takes a_di = -pi*theta_i, the second b_di = pi*theta_i (the paper's Ry and Rz); further ones go
    on with alternating signs.
    """
    turn_bn = math.pi * _float64(theta_bn)
    turns = [turn_bn if index % 2 else -turn_bn for index in range(len(spec.rotations))]
    return torch.stack(turns, -1)[:, None].expand(-1, spec.depth, -1, -1)


def make_signal(perturbation: config.Perturbation, backend: CircuitBackend | None) -> Signal:
    """The signal of `perturbation.source`; circuits go to `backend`, or are simulated in process where it is None."""
    match perturbation.source:
        case "sine":
            return SineSignal()
        case "zero":
            return ZeroSignal()
        case "circuit":
            return CircuitSignal(
                backend or AutoBackend(), perturbation.depth, perturbation.entangle, perturbation.rotations
            )


def _float64(theta_bn: Tensor) -> Tensor:
    return theta_bn.detach().to("cpu", torch.float64)
