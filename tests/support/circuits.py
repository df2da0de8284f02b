"""Circuits for tests: strategies of CircuitSpecs, and angles that a seed names."""

from typing import get_args

import torch
from hypothesis import strategies as st

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Entangle, Rotation

entangles = st.sampled_from(get_args(Entangle))
rotation_tuples = st.lists(st.sampled_from(get_args(Rotation)), min_size=1, max_size=3).map(tuple)
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])


def specs(most_qubits, most_depth, entangle=entangles):
    """Of 1 to so many qubits and layers."""
    return st.builds(CircuitSpec, st.integers(1, most_qubits), st.integers(1, most_depth), entangle, rotation_tuples)


def angles_of(spec, batch=5, seed=0, dtype=torch.float64):
    """(batch, depth, n_qubits, rotations) normal radians, some turns wide."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64) * 4).to(dtype)
