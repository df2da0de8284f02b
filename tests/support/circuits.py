"""Circuits for tests: strategies of CircuitSpecs, angles that a seed names, and answers of Qiskit."""

from typing import get_args

import numpy as np
import torch
from hypothesis import strategies as st

from qsgd_ray.circuits.chain import _twin
from qsgd_ray.circuits.chain._blocks import CHUNK_BYTES, prepare_angles
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Entangle, Rotation

ENTANGLE = get_args(Entangle)

entangles = st.sampled_from(ENTANGLE)
rotation_tuples = st.lists(st.sampled_from(get_args(Rotation)), min_size=1, max_size=3).map(tuple)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])


def specs(most_qubits, most_depth, entangle=entangles):
    """Return specs of 1 to `most_qubits` qubits and 1 to `most_depth` layers."""
    return st.builds(CircuitSpec, st.integers(1, most_qubits), st.integers(1, most_depth), entangle, rotation_tuples)


def angles_of(spec, batch=5, seed=0, dtype=torch.float64):
    """Return normal angles in radians, (batch, depth, n_qubits, rotations), with a standard deviation of 4."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64) * 4).to(dtype)


def twin_expectations(spec, angles, *, memory_bytes=CHUNK_BYTES):
    """Return <Z_i> by the chain's sweeps in Python, whether or not there is a kernel."""
    own_spec, prepared = prepare_angles(spec, angles)
    return _twin.expectations(own_spec, prepared, memory_bytes) if len(angles) else prepared.new_empty(0, spec.n_qubits)


def qiskit_z(spec, angles_dnr):
    """Return <Z_i> of every qubit of one circuit, (n_qubits,), from Qiskit's statevector."""
    from qiskit.quantum_info import Statevector

    psi = Statevector(spec.to_qiskit(angles_dnr)).data
    signs = 1 - 2 * (np.arange(len(psi))[:, None] >> np.arange(spec.n_qubits) & 1)
    return np.abs(psi) ** 2 @ signs
