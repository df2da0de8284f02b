"""The first amplitudes of a handful of narrow circuits: angles in, psi_0 ... psi_{n-1} and their gradient out.

Quantum attention asks a dozen circuits of four qubits a layer, forwards and backwards at every step. There each
operation of torch costs more than its arithmetic, and autograd doubles it; numpy with a hand-written adjoint pass takes
a fifth of that (docs/findings.md). A layer's gates are multiplied into one matrix for the lower and one for the upper
half of the qubits, which act on the state as a matrix from both sides.

Backwards: with the state behind a layer and its adjoint, t_P = Im<adjoint|P_i state> for P = X, Y, Z is the derivative
by a rotation at the layer's end about each axis; undoing the layer's rotations one by one turns t, and its component
along each rotation's axis is that angle's derivative.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from qsgd_ray.circuits.gates import permutation
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import first_amplitudes

# The halves' matrices hold 2 * 2**n numbers a layer and circuit: fine for narrow circuits only.
MAX_QUBITS = 8
AXES = {"rx": 0, "ry": 1, "rz": 2}
Array = NDArray[Any]


def few_first_amplitudes(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """psi_0 ... psi_{n-1} of each circuit, (batch, n_qubits) complex128, on the device of the angles (radians).

    Differentiable once, in reverse mode. Numerically statevector.first_amplitudes, but without its batching law: last
    bits may depend on the batch. Wide circuits go there. ValueError: angles of the wrong shape or not real floats.
    """
    spec.check_angles(angles_bdnr)
    if spec.n_qubits > MAX_QUBITS:
        return first_amplitudes(spec, angles_bdnr.to(torch.float64))
    return torch.view_as_complex(_Few.apply(angles_bdnr, spec))


class _Few(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles_bdnr: Tensor, spec: CircuitSpec) -> Tensor:
        # (rotation, depth, qubit, batch), half the angles
        half = angles_bdnr.detach().to("cpu", torch.float64).numpy().transpose(3, 1, 2, 0) * 0.5
        run = _Run(spec, np.ascontiguousarray(half))
        ctx.run, ctx.like = run, angles_bdnr
        first = np.ascontiguousarray(run.final[:, : spec.n_qubits])
        return torch.from_numpy(first.view(np.float64).reshape(*first.shape, 2)).to(angles_bdnr.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        g = grad.detach().cpu().numpy()
        gradient = torch.from_numpy(ctx.run.gradient(g[..., 0] + 1j * g[..., 1]))
        return gradient.to(ctx.like.device, ctx.like.dtype), None


class _Run:
    """The states behind each layer's rotations, (batch, 2**n), and the final ones."""

    def __init__(self, spec: CircuitSpec, half_rdnb: Array) -> None:
        self.spec, self.n = spec, spec.n_qubits
        self.cos, self.sin = np.cos(half_rdnb), np.sin(half_rdnb)
        self.batch = half_rdnb.shape[-1]
        n_lower = (self.n + 1) // 2
        self.shape = (self.batch, 1 << self.n - n_lower, 1 << n_lower)
        self.flat = (self.batch, 1 << self.n)
        gates = self._gates()
        self.lower = _kron(gates[:, :n_lower])  # (depth, batch, 2**n_lower, 2**n_lower)
        self.upper = _kron(gates[:, n_lower:])
        self.order, self.inverse = _orders(spec)
        state = np.full(self.shape, 2.0 ** (-self.n / 2), dtype=np.complex128)
        self.behind: list[Array] = []
        for level in range(spec.depth):
            state = self.upper[level] @ state @ self.lower[level].swapaxes(-1, -2)
            self.behind.append(state)
            if self.order is not None:
                state = state.reshape(self.flat)[:, self.order].reshape(self.shape)
        self.final = state.reshape(self.flat)

    def _gates(self) -> Array:
        """Each qubit's rotations of a layer in one: (depth, qubit, batch, 2, 2)."""
        a: Any = 1.0
        b: Any = 0.0
        for rotation, c, s in zip(self.spec.rotations, self.cos, self.sin, strict=True):
            if rotation == "rz":
                turn = c + 1j * s
                a, b = turn.conj() * a, turn * b
            else:
                s = -1j * s if rotation == "rx" else s
                a, b = c * a - s.conj() * b, s * a + c * b
        gates = np.empty((*self.cos.shape[1:], 2, 2), dtype=np.complex128)
        gates[..., 0, 0], gates[..., 1, 0] = a, b
        gates[..., 0, 1], gates[..., 1, 1] = -np.conj(b), np.conj(a)
        return gates

    def gradient(self, adjoint_bn: Array) -> Array:
        """The loss's gradient in the angles, (b, d, n, r), from its gradient in the amplitudes' re + i im, (b, n)."""
        adjoint = np.zeros((self.batch, 1 << self.n), dtype=np.complex128)
        adjoint[:, : self.n] = adjoint_bn
        adjoint = adjoint.reshape(self.shape)
        t_axis_dnb = np.empty((3, *self.cos.shape[1:]))
        n_lower = (self.n + 1) // 2
        for level in reversed(range(self.spec.depth)):
            if self.inverse is not None:
                adjoint = adjoint.reshape(self.flat)[:, self.inverse].reshape(self.shape)
            bra, ket = adjoint.conj(), self.behind[level]
            t_axis_dnb[:, level, :n_lower] = _along_axes(bra.swapaxes(1, 2) @ ket, n_lower)
            t_axis_dnb[:, level, n_lower:] = _along_axes(bra @ ket.swapaxes(1, 2), self.n - n_lower)
            if level:
                adjoint = self.upper[level].conj().swapaxes(-1, -2) @ adjoint @ self.lower[level].conj()
        return self._by_rotation(t_axis_dnb)

    def _by_rotation(self, t: Array) -> Array:
        gradient = np.empty_like(self.cos)
        cos, sin = self.cos**2 - self.sin**2, 2 * self.sin * self.cos  # of the whole angles
        for index in reversed(range(len(self.spec.rotations))):
            axis = AXES[self.spec.rotations[index]]
            # A half angle's derivative is <adjoint|-i P state>, a whole angle's half of it.
            gradient[index] = 0.5 * t[axis]
            one, other = (axis + 1) % 3, (axis + 2) % 3
            # The rotations before this one see their axes turned by it; turn t back instead.
            t = t.copy()
            t[one], t[other] = cos[index] * t[one] + sin[index] * t[other], cos[index] * t[other] - sin[index] * t[one]
        return np.ascontiguousarray(gradient.transpose(3, 1, 2, 0))


def _along_axes(between: Array, qubits: int) -> Array:
    """Im<adjoint|P_i state> for P = X, Y, Z, (3, qubits, batch), from sum_rest conj(adjoint_x) state_y."""
    values = between.reshape(len(between), 4**qubits) @ _paulis(qubits)
    return values.imag.T.reshape(3, qubits, len(between))


@lru_cache(maxsize=16)
def _paulis(qubits: int) -> Array:
    """X, Y and Z of each of some qubits as columns: (4**qubits, 3 * qubits)."""
    single = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    columns = [
        np.kron(np.kron(np.eye(1 << qubits - 1 - qubit), pauli), np.eye(1 << qubit)).reshape(-1)
        for pauli in single
        for qubit in range(qubits)
    ]
    return np.array(columns, dtype=np.complex128).reshape(3 * qubits, 4**qubits).T


def _kron(gates: Array) -> Array:
    """The product of the gates of neighbouring qubits: (depth, qubit, batch, 2, 2) -> (depth, batch, 2**q, 2**q)."""
    depth, qubits, batch = gates.shape[:3]
    whole = np.ones((depth, batch, 1, 1))
    for qubit in range(qubits):
        size = whole.shape[-1]
        whole = gates[:, qubit, :, :, None, :, None] * whole[:, :, None, :, None, :]
        whole = whole.reshape(depth, batch, 2 * size, 2 * size)
    return whole


@lru_cache(maxsize=64)
def _orders(spec: CircuitSpec) -> tuple[Array | None, Array | None]:
    """Where each amplitude comes from under a layer's CNOTs, and under their inverse."""
    cnots = spec.cnots()
    if not cnots:
        return None, None
    order = permutation(spec.n_qubits, cnots, torch.device("cpu")).numpy().astype(np.int64)
    return order, np.argsort(order)
