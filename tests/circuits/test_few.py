from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.circuits.few import MAX_QUBITS, few_first_amplitudes
from qsgd_ray.circuits.kinds import Entangle, Rotation
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import first_amplitudes

rotation_lists = st.lists(st.sampled_from(get_args(Rotation)), min_size=1, max_size=3).map(tuple)
specs = st.builds(
    CircuitSpec, st.integers(1, MAX_QUBITS), st.integers(1, 4), st.sampled_from(get_args(Entangle)), rotation_lists
)
seeds = st.integers(0, 2**32 - 1)


def angles_of(spec, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64) * 3


@given(specs, seeds)
def test_amplitudes_are_those_of_the_simulator(spec, seed):
    angles = angles_of(spec, 3, seed)
    assert (few_first_amplitudes(spec, angles) - first_amplitudes(spec, angles)).abs().max() < 1e-13


@given(specs, seeds)
def test_gradients_are_those_of_the_simulator(spec, seed):
    angles = angles_of(spec, 2, seed).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, spec.n_qubits, 2, generator=generator, dtype=torch.float64)

    def gradient(amplitudes):
        loss = (torch.view_as_real(amplitudes(spec, angles)) * weights).sum()
        return torch.autograd.grad(loss, angles, materialize_grads=True)[0]

    assert (gradient(few_first_amplitudes) - gradient(first_amplitudes)).abs().max() < 1e-12


@pytest.mark.parametrize("spec", [CircuitSpec(3, 2, "ring", ("rx", "rz", "ry")), CircuitSpec(2, 3)], ids=str)
def test_gradients_are_those_of_finite_differences(spec):
    angles = angles_of(spec, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: torch.view_as_real(few_first_amplitudes(spec, a)), (angles,))


def test_wide_circuits_go_to_the_simulator():
    spec = CircuitSpec(MAX_QUBITS + 1)
    angles = angles_of(spec, 2)
    assert torch.equal(few_first_amplitudes(spec, angles), first_amplitudes(spec, angles))


def test_gradients_come_in_the_precision_of_the_angles():
    angles = angles_of(CircuitSpec(2), 2).float().requires_grad_()
    answer = few_first_amplitudes(CircuitSpec(2), angles)
    answer.real.sum().backward()
    assert (answer.dtype, angles.grad.dtype) == (torch.complex128, torch.float32)


def test_an_empty_batch_has_an_empty_answer():
    assert few_first_amplitudes(CircuitSpec(3), torch.zeros(0, 2, 3, 2)).shape == (0, 3)


def test_angles_of_another_shape_are_refused():
    spec = replace(CircuitSpec(3), depth=1)
    with pytest.raises(ValueError, match="angles: got shape"):
        few_first_amplitudes(spec, torch.zeros(1, 2, 3, 2))
