"""A few small circuits on the CPU: angles in, the coefficients of their Fourier series and the Jacobian of these out.

Every layer is a product of two dense matrices, one on the lower and one on the upper half of the qubits. In numpy,
whose calls cost a third of torch's, and here there is nothing but calls: arrays of a few thousand numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.spec import CircuitSpec

Array = NDArray[Any]
# exp(-i t P / 2) = cos(t / 2) I + sin(t / 2) M with M = -i P
TURNS = {"rx": ((0, -1j), (-1j, 0)), "ry": ((0, -1), (1, 0)), "rz": ((-1j, 0), (0, 1j))}


class _Constants(NamedTuple):
    """What one ansatz shares between calls."""

    turns: Array  # M of each rotation: (rotation, 1, 1, 1, 2, 2)
    first: Array  # 1 for the first rotation, else 0: (rotation, 1, 1, 1, 1)
    source: Array  # where each amplitude comes from under the CNOTs, and where it goes
    target: Array
    split: Array  # (qubit, 2, rest): the basis states by the value of a qubit


@lru_cache(maxsize=32)
def _constants(spec: CircuitSpec) -> _Constants:
    n, dim = spec.n_qubits, 2**spec.n_qubits
    source = np.arange(dim)
    for control, target in reversed(spec.cnots()):
        source ^= ((source >> control) & 1) << target
    states = np.arange(dim)
    split = np.stack([np.stack([states[(states >> q) & 1 == bit] for bit in (0, 1)]) for q in range(n)])
    turns = np.array([TURNS[rotation] for rotation in spec.rotations])[:, None, None, None]
    first = np.eye(len(spec.rotations), 1)[:, :, None, None, None]
    return _Constants(turns, first, source, np.argsort(source), split)


def dense_series(
    spec: CircuitSpec, probability: bool, angles: Array, points: Array, transform: Array, wants_jacobian: bool
) -> tuple[Array, Array | None]:
    """Coefficients (n_heads, T), and their Jacobian (n_heads, T, depth * n_qubits * rotations).

    `angles`: (n_heads, depth, n_qubits, rotations) radians. `points` (T,): what is added to the first rotation.
    `transform` (T, T): from f at the points to the coefficients. f is the weight of the first n_qubits basis states
    where `probability`, else the real part of their amplitudes' sum.
    """
    known = _constants(spec)
    (heads, depth, n, n_rotations), n_points, dim = angles.shape, len(points), 2**spec.n_qubits
    circuits = heads * n_points
    half = (0.5 * angles.transpose(3, 1, 0, 2))[:, :, :, None] + 0.5 * points[:, None] * known.first
    half = half.reshape(n_rotations, depth, circuits, n, 1, 1)
    turns = np.cos(half) * np.eye(2) + np.sin(half) * known.turns  # (rotation, depth, circuit, qubit, 2, 2)
    through = [turns[0]]  # the first rotation, the first two, ...
    for turn in turns[1:]:
        through.append(turn @ through[-1])
    gates, n_lower = through[-1], (n + 1) // 2
    lower, upper = _product(gates[:, :, :n_lower]), _product(gates[:, :, n_lower:])
    lower_t, upper_t = lower.swapaxes(-1, -2), upper.swapaxes(-1, -2)

    shape = circuits, upper.shape[-1], lower.shape[-1]
    state = np.full(shape, dim**-0.5, dtype=complex)
    states = np.empty((depth, circuits, dim), dtype=complex)
    for level in range(depth):
        states[level] = state.reshape(circuits, dim)
        after = (upper[level] @ state @ lower_t[level]).reshape(circuits, dim)
        state = after.take(known.source, 1).reshape(shape)
    read = state.reshape(circuits, dim)[:, :n]
    values = (read.real**2 + read.imag**2).sum(1) if probability else read.real.sum(1)
    coefficients = values.reshape(heads, n_points) @ transform.T
    if not wants_jacobian:
        return coefficients, None

    # df = Re(row . d state): the row of ones, and 2 conj(psi) for |psi|^2, taken back through the layers.
    row = np.zeros((circuits, dim), dtype=complex)
    row[:, :n] = 2 * read.conj() if probability else 1
    rows = np.empty((depth, circuits, dim), dtype=complex)
    for level in reversed(range(depth)):
        before = upper_t[level] @ row.take(known.target, 1).reshape(shape) @ lower[level]
        rows[level] = row = before.reshape(circuits, dim)
    # All qubits but one summed over: (depth, circuit, qubit, 2, 2). No product that numpy's library would divide among
    # threads: on a busy machine these wait for each other fifty times as long as it takes.
    reduced = np.einsum("dcqxr,dcqyr->dcqxy", rows[:, :, known.split], states[:, :, known.split])
    # The slope of a rotation M, seen from in front of the layer: behind the rotations W before it, W^-1 (M / 2) W.
    generators = np.empty(turns.shape, dtype=complex)
    generators[0] = known.turns[0]
    for index in range(1, n_rotations):
        before = through[index - 1]
        generators[index] = before.conj().swapaxes(-1, -2) @ (known.turns[index] @ before)
    slopes = 0.5 * np.einsum("dcqxy,rdcqxy->cdqr", reduced, generators).real
    return coefficients, transform @ slopes.reshape(heads, n_points, -1)


def _product(gates: Array) -> Array:
    """The Kronecker product over the qubits, the first least significant: (depth, circuit, 2**qubits, 2**qubits)."""
    depth, circuits, n = gates.shape[:3]
    found = gates[:, :, 0] if n else np.ones((depth, circuits, 1, 1))
    for qubit in range(1, n):
        found = gates[:, :, qubit, :, None, :, None] * found[:, :, None, :, None, :]
        found = found.reshape(depth, circuits, 2 << qubit, 2 << qubit)
    return found
