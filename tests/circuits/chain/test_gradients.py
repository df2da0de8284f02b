import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.circuits import ENTANGLE, angles_of, qiskit_z, seeds, specs

from qsgd_ray.circuits.chain._cnot_tables import map_table
from qsgd_ray.circuits.chain.expectations import expectations
from qsgd_ray.circuits.spec import CircuitSpec


@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize(("n_qubits", "depth"), [(1, 2), (2, 2), (4, 1), (4, 2), (3, 3)])
def test_gradients_are_those_of_finite_differences(n_qubits, depth, entangle):
    spec = CircuitSpec(n_qubits, depth, entangle)
    angles = angles_of(spec, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: expectations(spec, a), (angles,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda a: expectations(spec, a, memory_bytes=1), (angles,), fast_mode=True)


@settings(deadline=None, max_examples=15)
@given(specs(4, 3), seeds, st.sampled_from([1, 2**24]))
def test_gradients_follow_the_parameter_shift_rule_on_qiskit(spec, seed, memory_bytes):
    angles = angles_of(spec, 1, seed).requires_grad_()
    weights = torch.arange(1, spec.n_qubits + 1, dtype=torch.float64)
    (expectations(spec, angles, memory_bytes=memory_bytes) @ weights).sum().backward()
    index = tuple(seed % size for size in angles.shape)
    shift = torch.zeros_like(angles)
    shift[index] = math.pi / 2
    with torch.no_grad():
        up, down = (qiskit_z(spec, angles + sign * shift) for sign in (1, -1))
    assert abs(float(angles.grad[index]) - (up - down) @ weights.numpy() / 2) < 1e-12


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_gradients_do_not_depend_on_the_blocks_they_are_computed_in(entangle):
    spec = CircuitSpec(50, 2, entangle)
    gradients = []
    for memory_bytes in (2**14, 2**16, 2**24):
        angles = angles_of(spec, 9, 5).requires_grad_()
        expectations(spec, angles, memory_bytes=memory_bytes).square().sum().backward()
        gradients.append(angles.grad)
    assert all((one - gradients[-1]).abs().max() < 1e-14 for one in gradients)


def test_gradients_flow_when_inference_mode_was_first_to_use_a_map():
    map_table.cache_clear()
    for spec in (CircuitSpec(4, 3, "ring"), CircuitSpec(4, 2, "all")):
        angles = angles_of(spec, 2, 1)
        with torch.inference_mode():
            z = expectations(spec, angles)
        tracked = angles.clone().requires_grad_()
        z_tracked = expectations(spec, tracked)
        assert torch.equal(z_tracked, z)
        z_tracked.sum().backward()
        assert tracked.grad.isfinite().all()
