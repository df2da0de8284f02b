"""Slow and obvious twins: circuits by Kronecker products, the scopes by indices, AdamW with the sine rule in a loop."""

from __future__ import annotations

import math

import numpy as np

H = np.array([[1, 1], [1, -1]]) / math.sqrt(2)


def ry(angle: float) -> np.ndarray:
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return np.array([[c, -s], [s, c]])


def rz(angle: float) -> np.ndarray:
    return np.diag([np.exp(-0.5j * angle), np.exp(0.5j * angle)])


def on_qubits(gates: list[np.ndarray]) -> np.ndarray:
    """gates[i] on qubit i; qubit 0 is the least significant, so it comes last in the product."""
    whole = np.eye(1)
    for gate in gates:
        whole = np.kron(gate, whole)
    return whole


def cnot(n_qubits: int, control: int, target: int) -> np.ndarray:
    matrix = np.zeros((2**n_qubits, 2**n_qubits))
    for state in range(2**n_qubits):
        flipped = state ^ (1 << target) if state >> control & 1 else state
        matrix[flipped, state] = 1
    return matrix


def rx(angle: float) -> np.ndarray:
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    return np.array([[c, -1j * s], [-1j * s, c]])


ROTATIONS = {"rx": rx, "ry": ry, "rz": rz}


def cnots(n_qubits: int, entangle: str) -> list[tuple[int, int]]:
    chain = [(qubit, qubit + 1) for qubit in range(n_qubits - 1)]
    pairs = [(i, j) for i in range(n_qubits) for j in range(n_qubits) if i < j]
    ring = [*chain, (n_qubits - 1, 0)] if n_qubits > 1 else []
    return {"none": [], "chain": chain, "ring": ring, "all": pairs}[entangle]


def state(n_qubits: int, depth: int, entangle: str, angles_dnr: np.ndarray, rotations=("ry", "rz")) -> np.ndarray:
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
    """<Z_i> of every qubit from the amplitudes."""
    n_qubits = int(math.log2(len(psi)))
    p = np.abs(psi) ** 2
    return np.array([sum(p[y] * (-1) ** (y >> i & 1) for y in range(len(p))) for i in range(n_qubits)])


def theta_angles(depth: int, theta: np.ndarray, n_rotations: int = 2) -> np.ndarray:
    """(depth, n, n_rotations): a_di = -pi*theta_i, b_di = pi*theta_i, and so on."""
    return np.array([[[math.pi * t * (-1) ** (index + 1) for index in range(n_rotations)] for t in theta]] * depth)


def blocks_of(sizes: list[int], scope: str, n_qubits: int) -> list[list[int]]:
    """Every block as the global indices of its coordinates."""
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    if scope == "tensor":
        return [
            list(range(start, start + min(n_qubits, size))) for start, size in zip(starts, sizes, strict=True) if size
        ]
    everything = list(range(sum(sizes)))
    blocks = [everything[i : i + n_qubits] for i in range(0, len(everything), n_qubits)]
    return blocks[:1] if scope == "model" else blocks


class AdamWWithSignal:
    """AdamW in float64 on one flat vector, lr * lambda * s(theta) * g taken off: method.md, section 2, line by line."""

    def __init__(self, theta, lr, beta1, beta2, eps, weight_decay, lambda_, blocks, signal):
        self.theta = np.array(theta, dtype=np.float64)
        self.m, self.v, self.t = np.zeros_like(self.theta), np.zeros_like(self.theta), 0
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self.weight_decay, self.lambda_, self.blocks, self.signal = weight_decay, lambda_, blocks, signal

    def step(self, g):
        q = np.zeros_like(self.theta)
        for block in self.blocks:
            q[block] = self.signal(self.theta[block]) * g[block]
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        m_hat, v_hat = self.m / (1 - self.beta1**self.t), self.v / (1 - self.beta2**self.t)
        self.adam_step = m_hat / (np.sqrt(v_hat) + self.eps)
        self.perturbation = self.lambda_ * q
        self.theta = self.theta - self.lr * (self.adam_step + self.weight_decay * self.theta + self.perturbation)


def sine_signal(theta: np.ndarray) -> np.ndarray:
    return np.array([math.sin(math.pi * t) for t in theta])


def circuit_signal(depth: int, entangle: str, rotations=("ry", "rz")):
    def signal(theta):
        angles = theta_angles(depth, theta, len(rotations))
        return z_values(state(len(theta), depth, entangle, angles, rotations))

    return signal
