import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.quantum_info import Statevector
from support import reference_circuits as reference
from support.circuits import angles_of, dtypes, qiskit_z, seeds, specs
from support.peak_memory import PeakMemory

from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import statevector_bytes
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import (
    expectations,
    first_amplitudes,
    probabilities,
    statevector,
    weight_of_first,
)
from qsgd_ray.optimizer.signals import circuit_angles


@settings(deadline=None, max_examples=60)
@given(specs(12, 6), seeds)
def test_states_probabilities_and_expectations_are_those_of_qiskit(spec, seed):
    angles = angles_of(spec, 2, seed)
    states, z = statevector(spec, angles).numpy(), expectations(spec, angles).numpy()
    p, first, weight = probabilities(spec, angles), first_amplitudes(spec, angles), weight_of_first(spec, angles)
    n = spec.n_qubits
    for one in range(2):
        psi = Statevector(spec.to_qiskit(angles[one]))
        assert np.abs(psi.data - states[one]).max() < 1e-12
        assert np.abs(qiskit_z(spec, angles[one]) - z[one]).max() < 1e-12
        assert np.abs(psi.probabilities() - p[one].numpy()).max() < 1e-12
        assert np.abs(psi.data[:n] - first[one].numpy()).max() < 1e-12
        assert abs(psi.probabilities()[:n].sum() - weight[one, 0]) < 1e-12


@settings(deadline=None, max_examples=100)
@given(specs(6, 4), seeds)
def test_states_and_expectations_are_those_of_the_naive_twin(spec, seed):
    angles = angles_of(spec, 1, seed)
    psi = reference.state(spec.n_qubits, spec.depth, spec.entangle, angles[0].numpy(), spec.rotations)
    assert np.abs(psi - statevector(spec, angles)[0].numpy()).max() < 1e-12
    assert np.abs(reference.z_values(psi) - expectations(spec, angles)[0].numpy()).max() < 1e-12


@settings(deadline=None, max_examples=40)
@given(specs(6, 4), seeds)
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
    assert np.abs(qiskit_z(spec, angles[0]) - exact[0].numpy()).max() < 1e-12


@settings(deadline=None, max_examples=100)
@given(specs(6, 4), seeds, dtypes, st.integers(1, 70), st.data())
def test_splitting_and_permuting_the_batch_changes_no_bit(spec, seed, dtype, batch, data):
    angles = angles_of(spec, batch, seed, dtype)
    z, states = expectations(spec, angles), statevector(spec, angles)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    cut = data.draw(st.integers(0, batch))
    for simulate, whole in ((expectations, z), (statevector, states)):
        assert torch.equal(simulate(spec, angles[order]), whole[order])
        assert torch.equal(torch.cat((simulate(spec, angles[:cut]), simulate(spec, angles[cut:]))), whole)


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


SMALL_SPECS = [
    CircuitSpec(1, 2),
    CircuitSpec(3, 1),
    CircuitSpec(3, 3),
    CircuitSpec(2, 2, "none", ("rz", "rx", "ry")),
    CircuitSpec(3, 2, "ring", ("rx", "rz")),
    CircuitSpec(3, 2, "all"),
]


@pytest.mark.parametrize("spec", SMALL_SPECS, ids=str)
def test_gradients_are_those_of_finite_differences(spec):
    angles = angles_of(spec, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: expectations(spec, a), (angles,))
    assert torch.autograd.gradcheck(lambda a: torch.view_as_real(statevector(spec, a)), (angles,))
    assert torch.autograd.gradcheck(lambda a: probabilities(spec, a), (angles,))
    assert torch.autograd.gradcheck(lambda a: torch.view_as_real(first_amplitudes(spec, a)), (angles,))
    assert torch.autograd.gradcheck(lambda a: weight_of_first(spec, a), (angles,))


@pytest.mark.parametrize("spec", [CircuitSpec(14, 4, "ring"), CircuitSpec(16, 2)], ids=str)
def test_gradients_store_no_state_between_the_gates(spec):
    # Recorded gate by gate, the deeper one would keep about 200 states.
    angles = angles_of(spec, 1, 0).requires_grad_()
    with PeakMemory() as memory:
        expectations(spec, angles).sum().backward()
    assert memory.peak <= 2.5 * statevector_bytes(spec.n_qubits) + 2**18


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
@given(specs(6, 4), seeds)
def test_states_have_norm_one(spec, seed):
    norms = torch.linalg.vector_norm(statevector(spec, angles_of(spec, 3, seed)), dim=1)
    assert (norms - 1).abs().max() < 1e-13


def test_a_circuit_of_many_qubits_is_the_product_of_sines():
    spec = CircuitSpec(17, 1)
    theta = torch.rand(1, 17, dtype=torch.float64) + 0.3
    exact = torch.cumprod(torch.sin(math.pi * theta), 1)
    assert (expectations(spec, circuit_angles(spec, theta)) - exact).abs().max() < 1e-12


def test_an_empty_batch_has_an_empty_answer():
    spec = CircuitSpec(3)
    assert expectations(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 3)
    assert statevector(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 8)
    assert probabilities(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 8)
    assert weight_of_first(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 1)
    assert first_amplitudes(spec, torch.zeros(0, 2, 3, 2)).shape == (0, 3)


def test_states_that_do_not_fit_are_refused_before_they_are_allocated(monkeypatch):
    monkeypatch.setattr("qsgd_ray.circuits.statevector.simulate.available_bytes", lambda device: 2**28)
    spec = CircuitSpec(24, 1)
    for simulate in (statevector, expectations, probabilities):
        with (
            PeakMemory() as memory,
            pytest.raises(CircuitMemoryError, match="671,088,640 bytes with 268,435,456 there"),
        ):
            simulate(spec, torch.zeros(1, 1, 24, 2, dtype=torch.float64))
        assert memory.peak < 2**16
    # One circuit fits; the states of the whole batch, which statevector returns, do not.
    batch = torch.zeros(300, 1, 17, 2, dtype=torch.float64)
    with pytest.raises(CircuitMemoryError, match="got 17, 300 states that needs"):
        statevector(CircuitSpec(17, 1), batch)


@pytest.mark.parametrize("simulate", [expectations, statevector, probabilities, weight_of_first, first_amplitudes])
def test_angles_of_another_shape_are_refused(simulate):
    with pytest.raises(ValueError, match="angles: got shape"):
        simulate(CircuitSpec(3), torch.zeros(1, 2, 4, 2))
