"""Naive twin of the optimizer: scopes by indices, AdamW with a signal in a loop over steps, in float64."""

from __future__ import annotations

import math

import numpy as np

from support.reference_circuits import state, z_values


def theta_angles(depth: int, theta: np.ndarray, n_rotations: int = 2) -> np.ndarray:
    """Return angles (depth, n, n_rotations): a_di = -pi*theta_i, b_di = pi*theta_i, and so on."""
    return np.array([[[math.pi * t * (-1) ** (index + 1) for index in range(n_rotations)] for t in theta]] * depth)


def blocks_of(sizes: list[int], scope: str, n_qubits: int) -> list[list[int]]:
    """Return the blocks of a scope, each as the global indices of its coordinates."""
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    if scope == "tensor":
        return [
            list(range(start, start + min(n_qubits, size))) for start, size in zip(starts, sizes, strict=True) if size
        ]
    everything = list(range(sum(sizes)))
    blocks = [everything[i : i + n_qubits] for i in range(0, len(everything), n_qubits)]
    return blocks[:1] if scope == "model" else blocks


class AdamWWithSignal:
    """AdamW in float64 on one flat vector, minus lr * lambda * s(theta) * g in every step.

    `signal` returns s of a block from its theta; with `draws` it takes the step and the block's first coordinate too.
    """

    def __init__(
        self,
        theta,
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        lambda_,
        blocks,
        signal,
        formula="adamw",
        placement="update",
        direction="gradient",
        draws=False,
    ):
        self.formula, self.placement, self.direction, self.draws = formula, placement, direction, draws
        self.theta = np.array(theta, dtype=np.float64)
        self.m, self.v, self.t = np.zeros_like(self.theta), np.zeros_like(self.theta), 0
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self.weight_decay, self.lambda_, self.blocks, self.signal = weight_decay, lambda_, blocks, signal

    def moments_after(self, g):
        return self.beta1 * self.m + (1 - self.beta1) * g, self.beta2 * self.v + (1 - self.beta2) * g**2

    def adam_direction(self, m, v):
        if self.formula == "paper":
            return m / np.sqrt(v + self.eps)
        m_hat, v_hat = m / (1 - self.beta1**self.t), v / (1 - self.beta2**self.t)
        return m_hat / (np.sqrt(v_hat) + self.eps)

    def step(self, g):
        self.t += 1
        base = g if self.direction == "gradient" else self.adam_direction(*self.moments_after(g))
        q = np.zeros_like(self.theta)
        for block in self.blocks:
            key = (self.t - 1, block[0]) if self.draws else ()
            q[block] = self.signal(self.theta[block], *key) * base[block]
        self.perturbation = self.lambda_ * q
        if self.placement == "moments":
            g = g + self.perturbation
        self.m, self.v = self.moments_after(g)
        self.adam_step = self.adam_direction(self.m, self.v)
        added = self.perturbation if self.placement == "update" else 0
        self.theta = self.theta - self.lr * (self.adam_step + self.weight_decay * self.theta + added)


def sine_signal(theta: np.ndarray) -> np.ndarray:
    return np.array([math.sin(math.pi * t) for t in theta])


def gradient_signal(theta: np.ndarray) -> np.ndarray:
    return np.ones(len(theta))


def splitmix64(x: int) -> int:
    """Return one output of SplitMix64, in Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def keyed_words(seed: int, step: int, start: int, n: int) -> list[int]:
    """Return n 64-bit words of the block that starts at `start`, at a step."""
    key = splitmix64(splitmix64(splitmix64(seed) + step) + start)
    return [splitmix64((key + i * 0x9E3779B97F4A7C15) % 2**64) for i in range(1, n + 1)]


def random_sign_signal(seed: int):
    def signal(theta, step, start):
        r = math.sqrt(sum(math.sin(math.pi * t) ** 2 for t in theta) / len(theta))
        return np.array([-r if word >= 2**63 else r for word in keyed_words(seed, step, start, len(theta))])

    return signal


def shuffled_signal(seed: int):
    def signal(theta, step, start):
        n = len(theta)
        turn = 1 + keyed_words(seed, step, start, 1)[0] % (n - 1) if n > 1 else 0
        return np.array([math.sin(math.pi * theta[(i + turn) % n]) for i in range(n)])

    return signal


def circuit_signal(depth: int, entangle: str, rotations=("ry", "rz")):
    def signal(theta):
        angles = theta_angles(depth, theta, len(rotations))
        return z_values(state(len(theta), depth, entangle, angles, rotations))

    return signal
