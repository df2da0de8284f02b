import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_circuits as reference
from support.circuits import ENTANGLE, angles_of, qiskit_z, seeds, specs

from qsgd_ray.circuits.chain.expectations import cost, expectations
from qsgd_ray.circuits.spec import CircuitSpec


def assert_qiskit_agrees(spec, seed, batch=1):
    angles = angles_of(spec, batch, seed)
    z = expectations(spec, angles).numpy()
    for one in range(batch):
        assert np.abs(qiskit_z(spec, angles[one]) - z[one]).max() < 1e-12


@settings(deadline=None, max_examples=200)
@given(specs(8, 3), seeds)
def test_expectations_are_those_of_qiskit(spec, seed):
    assert_qiskit_agrees(spec, seed, batch=2)


@pytest.mark.parametrize("entangle", ["chain", "ring", "all"])
@pytest.mark.parametrize("depth", [2, 3])
def test_every_choice_of_rotations_is_that_of_qiskit(depth, entangle):
    for count in (1, 2, 3):
        for rotations in itertools.product(("rx", "ry", "rz"), repeat=count):
            assert_qiskit_agrees(CircuitSpec(3, depth, entangle, rotations), count)


@settings(deadline=None, max_examples=25)
@given(st.builds(CircuitSpec, st.integers(2, 8), st.integers(4, 5), st.sampled_from(["chain", "all"])), seeds)
def test_deep_chains_are_those_of_qiskit(spec, seed):
    assert_qiskit_agrees(spec, seed)


@pytest.mark.parametrize("n_qubits", [2, 5, 7])
def test_a_ring_of_depth_four_is_that_of_qiskit(n_qubits):
    assert_qiskit_agrees(CircuitSpec(n_qubits, 4, "ring", ("rz", "rx")), n_qubits)


@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize("n_qubits", [12, 16])
def test_wider_circuits_are_those_of_qiskit(n_qubits, entangle):
    assert_qiskit_agrees(CircuitSpec(n_qubits, 2, entangle), n_qubits)


@settings(deadline=None, max_examples=30)
@given(specs(4, 3), seeds)
def test_expectations_are_those_of_the_naive_twin(spec, seed):
    angles = angles_of(spec, 1, seed)
    psi = reference.state(spec.n_qubits, spec.depth, spec.entangle, angles[0].numpy(), spec.rotations)
    assert np.abs(reference.z_values(psi) - expectations(spec, angles)[0].numpy()).max() < 1e-12


def theta_angles(spec, theta):
    return (torch.stack((-theta, theta), -1) * math.pi)[:, None].expand(spec.angles_shape(len(theta)))


CLOSED_FORMS = {
    (1, "none"): lambda s, theta: s,
    (1, "chain"): lambda s, theta: torch.cumprod(s, 1),
    (1, "all"): lambda s, theta: torch.cat((s[:, :1], s[:, 1:] * s[:, :-1]), 1),
    (1, "ring"): lambda s, theta: torch.cat((s[:, 1:].prod(1, keepdim=True), torch.cumprod(s, 1)[:, 1:]), 1),
    (2, "none"): lambda s, theta: 0.5 * torch.sin(2 * math.pi * theta) * (1 + torch.cos(math.pi * theta)),
}


@pytest.mark.parametrize(("depth", "entangle"), CLOSED_FORMS)
@settings(deadline=None, max_examples=20)
@given(n_qubits=st.integers(2, 300), seed=seeds)
def test_closed_forms_hold_at_any_width(depth, entangle, n_qubits, seed):
    spec = CircuitSpec(n_qubits, depth, entangle)
    theta = torch.randn(2, n_qubits, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    exact = CLOSED_FORMS[depth, entangle](torch.sin(math.pi * theta), theta)
    assert (expectations(spec, theta_angles(spec, theta)) - exact).abs().max() < 1e-12


@settings(deadline=None, max_examples=40)
@given(specs(8, 3), seeds)
def test_float32_is_close(spec, seed):
    angles = angles_of(spec, 3, seed)
    z = expectations(spec, angles.float())
    assert z.dtype == torch.float32
    assert (z - expectations(spec, angles)).abs().max() < 1e-4


def test_half_precision_angles_are_simulated_in_float32():
    spec = CircuitSpec(3)
    angles = angles_of(spec, 2, 0, torch.bfloat16)
    assert torch.equal(expectations(spec, angles), expectations(spec, angles.float()))


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_thousands_of_qubits_have_finite_expectations_and_gradients(entangle):
    spec = CircuitSpec(4096, 2, entangle)
    z = expectations(spec, angles_of(spec, 2, 7))
    assert z.shape == (2, 4096)
    assert z.isfinite().all()
    assert z.abs().max() <= 1 + 1e-12
    angles = angles_of(spec, 1, 7).requires_grad_()
    expectations(spec, angles).sum().backward()
    assert angles.grad.isfinite().all()


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_an_empty_batch_has_an_empty_answer_and_gradient(entangle):
    spec = CircuitSpec(3, 2, entangle)
    assert expectations(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 3)
    angles = torch.zeros(0, 2, 3, 2, requires_grad=True)
    expectations(spec, angles).sum().backward()
    assert angles.grad.shape == angles.shape


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_cost_grows_linearly_with_the_number_of_qubits(entangle):
    for depth in (1, 2, 3):
        one, many = (cost(CircuitSpec(n_qubits, depth, entangle)) for n_qubits in (1, 50))
        assert many == 50 * one > 0
    if entangle != "none":
        assert cost(CircuitSpec(8, 3, entangle)) > 4 * cost(CircuitSpec(8, 2, entangle))


def test_angles_of_another_shape_or_kind_are_refused():
    with pytest.raises(ValueError, match="angles: got shape"):
        expectations(CircuitSpec(3), torch.zeros(1, 2, 4, 2))
    with pytest.raises(ValueError, match="angles: got torch"):
        expectations(CircuitSpec(3), torch.zeros(1, 2, 3, 2, dtype=torch.int64))
