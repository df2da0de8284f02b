"""Naive twin of the simulators: one circuit as dense matrices, each layer a Kronecker product, in float64.

Qubit 0 is the least significant bit, as in Qiskit. Matrices have 4**n_qubits entries: for a few qubits.
"""

from __future__ import annotations

import math

import numpy as np

H = np.array([[1, 1], [1, -1]]) / math.sqrt(2)


def rx(angle: float) -> np.ndarray:
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return np.array([[c, -1j * s], [-1j * s, c]])


def ry(angle: float) -> np.ndarray:
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return np.array([[c, -s], [s, c]])


def rz(angle: float) -> np.ndarray:
    return np.diag([np.exp(-0.5j * angle), np.exp(0.5j * angle)])


ROTATIONS = {"rx": rx, "ry": ry, "rz": rz}


def on_qubits(gates: list[np.ndarray]) -> np.ndarray:
    """Return the matrix of gates[i] on qubit i; qubit 0 is the least significant, so it comes last in the product."""
    whole = np.eye(1)
    for gate in gates:
        whole = np.kron(gate, whole)
    return whole


def cnot(n_qubits: int, control: int, target: int) -> np.ndarray:
    """Return the permutation matrix of one CNOT."""
    matrix = np.zeros((2**n_qubits, 2**n_qubits))
    for state in range(2**n_qubits):
        flipped = state ^ (1 << target) if state >> control & 1 else state
        matrix[flipped, state] = 1
    return matrix


def cnots(n_qubits: int, entangle: str) -> list[tuple[int, int]]:
    """Return the CNOTs (control, target) of one layer, in order."""
    chain = [(qubit, qubit + 1) for qubit in range(n_qubits - 1)]
    pairs = [(i, j) for i in range(n_qubits) for j in range(n_qubits) if i < j]
    ring = [*chain, (n_qubits - 1, 0)] if n_qubits > 1 else []
    return {"none": [], "chain": chain, "ring": ring, "all": pairs}[entangle]


def state(n_qubits: int, depth: int, entangle: str, angles_dnr: np.ndarray, rotations=("ry", "rz")) -> np.ndarray:
    """Return the final amplitudes, (2**n_qubits,), of one circuit; angles in radians."""
    psi = np.zeros(2**n_qubits, dtype=complex)
    psi[0] = 1
    psi = on_qubits([H] * n_qubits) @ psi
    for level in range(depth):
        for index, rotation in enumerate(rotations):
            psi = on_qubits([ROTATIONS[rotation](angles[index]) for angles in angles_dnr[level]]) @ psi
        for control, target in cnots(n_qubits, entangle):
            psi = cnot(n_qubits, control, target) @ psi
    return psi


def z_values(psi: np.ndarray) -> np.ndarray:
    """Return <Z_i> of every qubit from the amplitudes."""
    n_qubits = int(math.log2(len(psi)))
    p = np.abs(psi) ** 2
    return np.array([sum(p[y] * (-1) ** (y >> i & 1) for y in range(len(p))) for i in range(n_qubits)])
