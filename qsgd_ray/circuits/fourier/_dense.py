"""Fourier coefficients of a few small circuits on the CPU, and their Jacobian in the angles, by dense matrices.

Each layer is two dense matrices, one on the lower and one on the upper half of the qubits. The arrays have a few
thousand numbers, so the time is that of the calls, and those of numpy cost a third of torch's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.spec import CircuitSpec

_Array = NDArray[Any]
# exp(-i t P / 2) = cos(t / 2) I + sin(t / 2) M with M = -i P
_TURNS = {"rx": ((0, -1j), (-1j, 0)), "ry": ((0, -1), (1, 0)), "rz": ((-1j, 0), (0, 1j))}


class _Constants(NamedTuple):
    """Constant arrays of one spec."""

    turns: _Array  # M of each rotation: (rotation, 1, 1, 1, 2, 2)
    first: _Array  # 1 for the first rotation, else 0: (rotation, 1, 1, 1, 1)
    source: _Array  # the index that each amplitude comes from under the CNOTs
    target: _Array  # the index that it goes to
    split: _Array  # (qubit, 2, rest): the basis states by the value of a qubit


@lru_cache(maxsize=32)
def _constants(spec: CircuitSpec) -> _Constants:
    n, dim = spec.n_qubits, 2**spec.n_qubits
    source = np.arange(dim)
    for control, target in reversed(spec.cnots()):
        source ^= ((source >> control) & 1) << target
    states = np.arange(dim)
    split = np.stack([np.stack([states[(states >> q) & 1 == bit] for bit in (0, 1)]) for q in range(n)])
    turns = np.array([_TURNS[rotation] for rotation in spec.rotations])[:, None, None, None]
    first = np.eye(len(spec.rotations), 1)[:, :, None, None, None]
    return _Constants(turns, first, source, np.argsort(source), split)


def dense_series(
    spec: CircuitSpec, probability: bool, angles: _Array, points: _Array, transform: _Array, with_jacobian: bool
) -> tuple[_Array, _Array | None]:
    """Return the coefficients (n_heads, T) and, where wanted, their Jacobian (n_heads, T, d * n * r).

    Args:
        spec: the circuit; n qubits, depth d, r rotations.
        probability: f is |psi_0|^2 + ... + |psi_{n-1}|^2; else the real part of psi_0 + ... + psi_{n-1}.
        angles: float64, shape (n_heads, d, n, r), in radians.
        points: shape (T,), radians that are added to the first rotation.
        transform: shape (T, T), from f at the points to the coefficients.
        with_jacobian: compute the Jacobian; else it is None.
    """
    constants = _constants(spec)
    (heads, depth, n, n_rotations), n_points, dim = angles.shape, len(points), 2**spec.n_qubits
    circuits = heads * n_points
    half = (0.5 * angles.transpose(3, 1, 0, 2))[:, :, :, None] + 0.5 * points[:, None] * constants.first
    half = half.reshape(n_rotations, depth, circuits, n, 1, 1)
    turns = np.cos(half) * np.eye(2) + np.sin(half) * constants.turns  # (rotation, depth, circuit, qubit, 2, 2)
    products = [turns[0]]  # of the first rotation, of the first two, ...
    for turn in turns[1:]:
        products.append(turn @ products[-1])
    gates, n_lower = products[-1], (n + 1) // 2
    lower, upper = _product(gates[:, :, :n_lower]), _product(gates[:, :, n_lower:])
    lower_t, upper_t = lower.swapaxes(-1, -2), upper.swapaxes(-1, -2)

    shape = circuits, upper.shape[-1], lower.shape[-1]
    state = np.full(shape, dim**-0.5, dtype=complex)
    states = np.empty((depth, circuits, dim), dtype=complex)
    for level in range(depth):
        states[level] = state.reshape(circuits, dim)
        after = (upper[level] @ state @ lower_t[level]).reshape(circuits, dim)
        state = after.take(constants.source, 1).reshape(shape)
    read = state.reshape(circuits, dim)[:, :n]
    values = (read.real**2 + read.imag**2).sum(1) if probability else read.real.sum(1)
    coefficients = values.reshape(heads, n_points) @ transform.T
    if not with_jacobian:
        return coefficients, None

    # df = Re(row . d state), with a row of ones, or 2 conj(psi) for |psi|^2, moved back through the layers.
    row = np.zeros((circuits, dim), dtype=complex)
    row[:, :n] = 2 * read.conj() if probability else 1
    rows = np.empty((depth, circuits, dim), dtype=complex)
    for level in reversed(range(depth)):
        before = upper_t[level] @ row.take(constants.target, 1).reshape(shape) @ lower[level]
        rows[level] = row = before.reshape(circuits, dim)
    # Sum over all qubits but one: (depth, circuit, qubit, 2, 2). einsum, since numpy's library would divide a matrix
    # product among threads, which on a busy machine wait for each other for fifty times as long as the product takes.
    reduced = np.einsum("dcqxr,dcqyr->dcqxy", rows[:, :, constants.split], states[:, :, constants.split])
    # The derivative of a rotation M, moved in front of the layer through the rotations W before it: W^-1 (M / 2) W.
    generators = np.empty(turns.shape, dtype=complex)
    generators[0] = constants.turns[0]
    for index in range(1, n_rotations):
        before = products[index - 1]
        generators[index] = before.conj().swapaxes(-1, -2) @ (constants.turns[index] @ before)
    slopes = 0.5 * np.einsum("dcqxy,rdcqxy->cdqr", reduced, generators).real
    return coefficients, transform @ slopes.reshape(heads, n_points, -1)


def _product(gates: _Array) -> _Array:
    """Return the Kronecker product over the qubits, the first least significant, (d, circuit, 2**qubits, 2**qubits)."""
    depth, circuits, n = gates.shape[:3]
    product = gates[:, :, 0] if n else np.ones((depth, circuits, 1, 1))
    for qubit in range(1, n):
        product = gates[:, :, qubit, :, None, :, None] * product[:, :, None, :, None, :]
        product = product.reshape(depth, circuits, 2 << qubit, 2 << qubit)
    return product
