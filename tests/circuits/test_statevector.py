import math

import numpy as np
import pytest
import reference_circuits as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.quantum_info import Pauli, Statevector

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import expectations, statevector
from qsgd_ray.perturbation import circuit_angles

specs = st.builds(CircuitSpec, st.integers(1, 6), st.integers(1, 4), st.booleans())
seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])


def angles_of(spec, batch, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64) * 4).to(dtype)


def qiskit_z(psi):
    n = psi.num_qubits
    return np.array([psi.expectation_value(Pauli("I" * (n - 1 - i) + "Z" + "I" * i)).real for i in range(n)])


@settings(deadline=None, max_examples=60)
@given(specs, seeds)
def test_states_and_expectations_are_those_of_qiskit(spec, seed):
    angles = angles_of(spec, 2, seed)
    states, z = statevector(spec, angles).numpy(), expectations(spec, angles).numpy()
    for one in range(2):
        psi = Statevector(spec.to_qiskit(angles[one]))
        assert np.abs(psi.data - states[one]).max() < 1e-12
        assert np.abs(qiskit_z(psi) - z[one]).max() < 1e-12


@settings(deadline=None, max_examples=100)
@given(specs, seeds)
def test_states_and_expectations_are_those_of_the_naive_twin(spec, seed):
    angles = angles_of(spec, 1, seed)
    psi = reference.state(spec.n_qubits, spec.depth, spec.entangle, angles[0].numpy())
    assert np.abs(psi - statevector(spec, angles)[0].numpy()).max() < 1e-12
    assert np.abs(reference.z_values(psi) - expectations(spec, angles)[0].numpy()).max() < 1e-12


@settings(deadline=None, max_examples=40)
@given(specs, seeds)
def test_float32_is_complex64_and_close(spec, seed):
    angles = angles_of(spec, 3, seed)
    states, z = statevector(spec, angles.float()), expectations(spec, angles.float())
    assert (states.dtype, z.dtype) == (torch.complex64, torch.float32)
    assert (states - statevector(spec, angles)).abs().max() < 1e-4
    assert (z - expectations(spec, angles)).abs().max() < 1e-4


def test_half_precision_angles_are_simulated_in_float32():
    spec = CircuitSpec(3)
    angles = angles_of(spec, 2, 0, torch.bfloat16)
    assert torch.equal(expectations(spec, angles), expectations(spec, angles.float()))


# The three identities of the method, section 2.
CLOSED_FORMS = {
    (1, False): lambda theta: torch.sin(math.pi * theta),
    (1, True): lambda theta: torch.cumprod(torch.sin(math.pi * theta), 1),
    (2, False): lambda theta: 0.5 * torch.sin(2 * math.pi * theta) * (1 + torch.cos(math.pi * theta)),
}


@pytest.mark.parametrize(("depth", "entangle"), CLOSED_FORMS)
@settings(deadline=None, max_examples=40)
@given(n_qubits=st.integers(1, 6), seed=seeds)
def test_identities_hold_for_the_simulator_and_for_qiskit(depth, entangle, n_qubits, seed):
    spec = CircuitSpec(n_qubits, depth, entangle)
    theta = torch.randn(2, n_qubits, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    angles, exact = circuit_angles(spec, theta), CLOSED_FORMS[depth, entangle](theta)
    assert (expectations(spec, angles) - exact).abs().max() < 1e-12
    assert np.abs(qiskit_z(Statevector(spec.to_qiskit(angles[0]))) - exact[0].numpy()).max() < 1e-12


@settings(deadline=None, max_examples=100)
@given(specs, seeds, dtypes, st.integers(1, 70), st.data())
def test_splitting_and_permuting_the_batch_changes_no_bit(spec, seed, dtype, batch, data):
    angles = angles_of(spec, batch, seed, dtype)
    z, states = expectations(spec, angles), statevector(spec, angles)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    cut = data.draw(st.integers(0, batch))
    for simulate, whole in ((expectations, z), (statevector, states)):
        assert torch.equal(simulate(spec, angles[order]), whole[order])
        assert torch.equal(torch.cat((simulate(spec, angles[:cut]), simulate(spec, angles[cut:]))), whole)


@settings(deadline=None, max_examples=40)
@given(specs, seeds, dtypes, st.integers(1, 40), st.integers(1, 20_000))
def test_the_memory_budget_changes_no_bit(spec, seed, dtype, batch, memory_bytes):
    angles = angles_of(spec, batch, seed, dtype)
    assert torch.equal(expectations(spec, angles, memory_bytes=memory_bytes), expectations(spec, angles))
    assert torch.equal(statevector(spec, angles, memory_bytes=memory_bytes), statevector(spec, angles))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [torch.cos, torch.sin])
def test_trigonometry_gives_the_same_bits_at_every_position(function, dtype):
    # The one thing the batching law takes from the library.
    x = (torch.rand(600, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 60 - 30).to(dtype)
    alone = torch.cat([function(one) for one in x.split(1)])
    for start in range(33):
        for size in (*range(1, 36), 64, 65, 127, 500):
            assert torch.equal(function(x[start : start + size]), alone[start : start + size])


def test_one_circuit_alone_has_the_bits_it_has_among_thousands():
    spec = CircuitSpec(4)
    angles = angles_of(spec, 3001, 1)
    z = expectations(spec, angles)
    for one in (0, 1, 1234, 2047, 2048, 2999, 3000):
        assert torch.equal(expectations(spec, angles[one : one + 1])[0], z[one])


def test_repeating_a_simulation_repeats_its_bits():
    spec = CircuitSpec(5, 3)
    angles = angles_of(spec, 50, 2)
    assert torch.equal(expectations(spec, angles), expectations(spec, angles))


@pytest.mark.parametrize("entangle", [True, False])
@pytest.mark.parametrize(("n_qubits", "depth"), [(1, 2), (3, 1), (3, 3)])
def test_gradients_are_those_of_finite_differences(n_qubits, depth, entangle):
    spec = CircuitSpec(n_qubits, depth, entangle)
    angles = angles_of(spec, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: expectations(spec, a), (angles,))
    assert torch.autograd.gradcheck(lambda a: expectations(spec, a, memory_bytes=1), (angles,))
    assert torch.autograd.gradcheck(lambda a: torch.view_as_real(statevector(spec, a)), (angles,))


def test_gradient_follows_the_parameter_shift_rule():
    spec = CircuitSpec(4, 2)
    angles = angles_of(spec, 1, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(expectations(spec, angles)[0, 3], angles)
    shift = torch.zeros_like(angles)
    shift[0, 0, 1, 1] = math.pi / 2
    with torch.no_grad():
        expected = (expectations(spec, angles + shift) - expectations(spec, angles - shift))[0, 3] / 2
    assert abs(float(gradient[0, 0, 1, 1] - expected)) < 1e-14


@settings(deadline=None, max_examples=30)
@given(specs, seeds)
def test_states_have_norm_one(spec, seed):
    norms = torch.linalg.vector_norm(statevector(spec, angles_of(spec, 3, seed)), dim=1)
    assert (norms - 1).abs().max() < 1e-13


def test_a_wide_circuit_is_the_product_it_must_be():
    # 17 qubits: beyond the kept permutations.
    spec = CircuitSpec(17, 1)
    theta = torch.rand(1, 17, dtype=torch.float64) + 0.3
    exact = torch.cumprod(torch.sin(math.pi * theta), 1)
    assert (expectations(spec, circuit_angles(spec, theta)) - exact).abs().max() < 1e-12


def test_an_empty_batch_has_an_empty_answer():
    spec = CircuitSpec(3)
    assert expectations(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 3)
    assert statevector(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 8)


@pytest.mark.parametrize("simulate", [expectations, statevector])
def test_angles_of_another_shape_are_refused(simulate):
    with pytest.raises(ValueError, match="angles: got shape"):
        simulate(CircuitSpec(3), torch.zeros(1, 2, 4, 2))
