"""Simulate whole states by hand-written JAX, in four ways; the circuit is H, then layers of Ry, Rz and CNOTs.

A gate is G = Rz(b) Ry(a). The first layer acts on a product state, and CNOTs permute amplitudes: a gather.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.bench.circuits.engine import Circuits, gates
from qsgd_ray.bench.circuits.peers._jax_calls import JaxEngine, import_jax, z_of_states
from qsgd_ray.circuits.spec import CircuitSpec

_ROOT = 0.5**0.5


def _layer_gates(angles: Any) -> Any:
    """Return Rz(b) Ry(a), (..., 2, 2) complex, of angles (..., 2)."""
    jax = import_jax()
    jnp = jax.numpy
    half = angles / 2
    c, s = jnp.cos(half[..., 0]), jnp.sin(half[..., 0])
    phase = jax.lax.complex(jnp.cos(half[..., 1]), -jnp.sin(half[..., 1]))
    upper, lower = jnp.stack([c, -s], -1) * phase[..., None], jnp.stack([s, c], -1) * phase.conj()[..., None]
    return jnp.stack([upper, lower], -2)


def _sources(spec: CircuitSpec) -> NDArray[np.int32]:
    """Return for each amplitude after a layer of CNOTs the index that it had before, (2**n,)."""
    index = np.arange(2**spec.n_qubits, dtype=np.int32)
    for control, target in reversed(spec.cnots()):
        index = index ^ (((index >> control) & 1) << target)
    return index


def _plain(spec: CircuitSpec, angles: Any) -> Any:
    """Return the state (2**n,) of one circuit, a gate at a time on a tensor of an axis a qubit."""
    jnp = import_jax().numpy
    n = spec.n_qubits
    dtype = jnp.result_type(angles.dtype, jnp.complex64)
    state = jnp.zeros((2,) * n, dtype).at[(0,) * n].set(1)
    hadamard = _ROOT * jnp.array([[1, 1], [1, -1]], dtype)
    cnot = jnp.eye(4, dtype=dtype)[np.array([0, 1, 3, 2])].reshape(2, 2, 2, 2)

    def matrix(name: str, angle: Any) -> Any:
        c, s = jnp.cos(angle / 2), jnp.sin(angle / 2)
        rows = [[c, -s], [s, c]] if name == "ry" else [[c - 1j * s, 0], [0, c + 1j * s]]
        return jnp.array(rows, dtype)

    for gate in gates(spec, first_wire_most_significant=True):
        if gate.name == "cx":
            contracted = jnp.tensordot(cnot, state, ((2, 3), gate.wires))
            state = jnp.moveaxis(contracted, (0, 1), gate.wires)
        else:
            factor = hadamard if gate.angle is None else matrix(gate.name, angles[gate.angle])
            state = jnp.moveaxis(jnp.tensordot(factor, state, ((1,), gate.wires)), 0, gate.wires[0])
    return state.reshape(-1)


def _fused(spec: CircuitSpec, angles: Any) -> Any:
    """Return states (2**n, b): one 2x2 matrix a qubit and layer, the batch along the last axis."""
    jnp = import_jax().numpy
    n, batch = spec.n_qubits, len(angles)
    g = jnp.moveaxis(_layer_gates(angles), 0, -1)  # (d, n, 2, 2, b)
    opening = _ROOT * g[0].sum(2)
    state = opening[0]
    for qubit in range(1, n):
        state = (opening[qubit][:, None] * state).reshape(-1, batch)
    sources = _sources(spec)
    state = state[sources]
    for level in range(1, spec.depth):
        for qubit in range(n):
            zero, one = state.reshape(-1, 2, 2**qubit, batch).swapaxes(0, 1)
            m = g[level, qubit]
            state = jnp.stack([m[0, 0] * zero + m[0, 1] * one, m[1, 0] * zero + m[1, 1] * one], 1)
        state = state.reshape(-1, batch)[sources]
    return state


def _kron(spec: CircuitSpec, angles: Any) -> Any:
    """Return states (b, 2**n): the gates of each half of the qubits as one dense matrix."""
    jnp = import_jax().numpy
    n, batch = spec.n_qubits, len(angles)
    lower = (n + 1) // 2
    g = _layer_gates(angles)

    def product(factors: Any) -> Any:
        """Kronecker product over axis 1, whose first factor is the least significant."""
        result = factors[:, 0]
        for k in range(1, factors.shape[1]):
            size = 2 * result.shape[1]
            columns = factors.shape[-1] * result.shape[2]
            result = jnp.einsum("bij,bkl->bikjl", factors[:, k], result).reshape(batch, size, columns)
        return result

    state = product(_ROOT * g[:, 0].sum(-1, keepdims=True)).reshape(batch, -1)
    sources = _sources(spec)
    state = state[:, sources]
    for level in range(1, spec.depth):
        matrices = state.reshape(batch, -1, 2**lower)
        matrices = jnp.einsum("bul,bml->bum", matrices, product(g[:, level, :lower]))
        if n > lower:
            matrices = jnp.einsum("bvu,bum->bvm", product(g[:, level, lower:]), matrices)
        state = matrices.reshape(batch, -1)[:, sources]
    return state


def _halves(spec: CircuitSpec, angles: Any) -> Any:
    """Return states (2**n, b) of a chain of depth 2, contracted from both ends: a bond of 2 joins two halves."""
    jnp = import_jax().numpy
    n, batch = spec.n_qubits, len(angles)
    g = jnp.moveaxis(_layer_gates(angles), 0, -1)
    opening = _ROOT * g[0].sum(2)  # (n, 2, b)
    # Qubit k after the first chain is y; it had y xor c before, with c the y of its neighbour below.
    flipped = opening[:, np.array([[0, 1], [1, 0]])]
    sites = g[1][:, :, :, None] * flipped[:, None]  # (n, x, y, c, b)
    lower = (n + 1) // 2
    low = sites[0][:, :, 0]
    for qubit in range(1, lower):
        low = jnp.einsum("xycb,icb->xiyb", sites[qubit], low).reshape(-1, 2, batch)
    if n == lower:
        return low.sum(1)[_sources(spec)]
    up = sites[n - 1].sum(1)
    for qubit in range(n - 2, lower - 1, -1):
        up = jnp.einsum("iyb,xycb->ixcb", up, sites[qubit]).reshape(-1, 2, batch)
    state = up[:, None, 0] * low[None, :, 0] + up[:, None, 1] * low[None, :, 1]
    return state.reshape(-1, batch)[_sources(spec)]


class JaxPlain(JaxEngine):
    """A gate at a time, vmapped."""

    name = "jax plain"

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped simulation."""
        return import_jax().vmap(partial(_plain, circuits.spec))

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped simulation, read."""
        states = import_jax().vmap(partial(_plain, circuits.spec))
        return lambda angles: z_of_states(states(angles), circuits.spec.n_qubits)


class JaxFused(JaxEngine):
    """One matrix a qubit and layer, the batch along the last axis."""

    name = "jax fused"
    simulate = staticmethod(_fused)

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the simulation, its states turned to (b, 2**n)."""
        return lambda angles: self.simulate(circuits.spec, angles).T

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the simulation, read."""
        n = circuits.spec.n_qubits
        return lambda angles: z_of_states(self.simulate(circuits.spec, angles), n, batch_last=True)


class JaxKron(JaxEngine):
    """Each half of the qubits as one dense matrix a layer."""

    name = "jax kron"

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the simulation."""
        return partial(_kron, circuits.spec)

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the simulation, read."""
        return lambda angles: z_of_states(_kron(circuits.spec, angles), circuits.spec.n_qubits)


class JaxHalves(JaxFused):
    """Two halves of a chain of depth 2, contracted."""

    name = "jax halves"
    simulate = staticmethod(_halves)

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the contraction; None for other circuits."""
        return super().states_of(circuits) if _is_shallow_chain(circuits.spec) else None

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the contraction, read; None for other circuits."""
        return super().z_of(circuits) if _is_shallow_chain(circuits.spec) else None


def _is_shallow_chain(spec: CircuitSpec) -> bool:
    return spec.depth == 2 and spec.entangle == "chain"
