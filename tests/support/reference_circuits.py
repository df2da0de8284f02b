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


# Any circuit, gate by gate on a dense state.
ONE_QUBIT = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
    "h": H,
    "x": np.array([[0, 1], [1, 0]]),
    "y": np.array([[0, -1j], [1j, 0]]),
    "z": np.diag([1, -1]),
    "s": np.diag([1, 1j]),
    "sdg": np.diag([1, -1j]),
    "t": np.diag([1, np.exp(0.25j * np.pi)]),
    "tdg": np.diag([1, np.exp(-0.25j * np.pi)]),
    "sx": np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2,
}


def on_qubit(matrix: np.ndarray, qubit: int, psi: np.ndarray) -> np.ndarray:
    """Return the amplitudes after a matrix (2, 2) on one qubit."""
    return np.einsum("ij,ajb->aib", matrix, psi.reshape(-1, 2, 2**qubit)).reshape(-1)


def pauli_string(letters: str, qubits: tuple[int, ...], psi: np.ndarray) -> np.ndarray:
    """Return P psi; letter i of P is on qubits[i]."""
    for letter, qubit in zip(letters, qubits, strict=True):
        psi = on_qubit(ONE_QUBIT[letter], qubit, psi)
    return psi


def dense_state(circuit, values_s) -> np.ndarray:
    """Return the final amplitudes, complex128 (2**n_qubits,), of a `Circuit`; values of its slots, inputs first."""
    psi = np.zeros(2**circuit.n_qubits, dtype=complex)
    psi[0] = 1
    first = {"input": 0, "weight": circuit.n_inputs}
    for gate in circuit.gates:
        qubits = gate.qubits
        if gate.name == "rotation":
            terms = gate.angle.terms
            parts = (factor * float(values_s[first[kind] + slot]) for kind, slot, factor in terms)
            angle = gate.angle.offset + sum(parts)
            psi = math.cos(angle / 2) * psi - 1j * math.sin(angle / 2) * pauli_string(gate.pauli, qubits, psi)
        elif gate.name in ("cx", "cz"):
            control_is_1 = (psi - on_qubit(ONE_QUBIT["Z"], qubits[0], psi)) / 2
            psi = psi - control_is_1 + on_qubit(ONE_QUBIT[gate.name[1]], qubits[1], control_is_1)
        elif gate.name == "swap":
            psi = sum(pauli_string(letters, qubits, psi) for letters in ("II", "XX", "YY", "ZZ")) / 2
        else:
            psi = on_qubit(ONE_QUBIT[gate.name], qubits[0], psi)
    return psi


def dense_expectation(psi: np.ndarray, pauli_terms) -> float:
    """Return the expectation value of a sum of terms (coefficient, letters, qubits); letter i is on qubits[i]."""
    return sum(
        coefficient * np.vdot(psi, pauli_string(letters, qubits, psi)).real
        for coefficient, letters, qubits in pauli_terms
    )
