import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.quantum_info import Statevector
from support.circuits import ENTANGLE, angles_of, dtypes, seeds, specs

from qsgd_ray.circuits.chain import amplitudes
from qsgd_ray.circuits.chain._cnot_tables import map_table
from qsgd_ray.circuits.spec import CircuitSpec


def basis_states(n_qubits):
    return torch.arange(2**n_qubits)[:, None] >> torch.arange(n_qubits) & 1


@settings(deadline=None, max_examples=100)
@given(specs(6, 4), seeds)
def test_amplitudes_are_those_of_qiskit(spec, seed):
    angles = angles_of(spec, 2, seed)
    psi = amplitudes(spec, angles, basis_states(spec.n_qubits)).numpy()
    for one in range(2):
        assert np.abs(Statevector(spec.to_qiskit(angles[one])).data - psi[one]).max() < 1e-12


@settings(deadline=None, max_examples=30)
@given(specs(9, 3), seeds)
def test_probabilities_of_all_basis_states_add_up_to_one(spec, seed):
    psi = amplitudes(spec, angles_of(spec, 2, seed), basis_states(spec.n_qubits))
    assert (psi.abs().square().sum(1) - 1).abs().max() < 1e-13


@settings(deadline=None, max_examples=50)
@given(specs(4, 3), seeds, dtypes, st.integers(1, 40), st.data())
def test_neither_circuits_nor_basis_states_change_a_bit_of_another_amplitude(spec, seed, dtype, batch, data):
    angles, states = angles_of(spec, batch, seed, dtype), basis_states(spec.n_qubits)
    psi = amplitudes(spec, angles, states)
    one, state = data.draw(st.integers(0, batch - 1)), data.draw(st.integers(0, len(states) - 1))
    alone = amplitudes(spec, angles[one : one + 1], states[state : state + 1])
    assert torch.equal(alone[0, 0], psi[one, state])


def test_amplitudes_in_blocks_of_sites_have_the_same_bits_and_gradients():
    spec, states = CircuitSpec(300, 2, "ring"), torch.arange(6)[:, None] >> torch.arange(300).clamp(max=9) & 1
    angles = angles_of(spec, 200, 3)
    psi = amplitudes(spec, angles, states)
    assert torch.equal(amplitudes(spec, angles[:1], states), psi[:1])
    tracked = angles[:3].clone().requires_grad_()
    assert torch.equal(amplitudes(spec, tracked, states).detach(), psi[:3])


def test_amplitudes_are_computed_beyond_an_int64_and_underflow_beyond_float64():
    spec = CircuitSpec(200, 1, "chain", ("rz",))
    angles, states = torch.zeros(1, 1, 200, 1, dtype=torch.float64), torch.ones(2, 200, dtype=torch.bool)
    assert (amplitudes(spec, angles, states) * 2.0**100 - 1).abs().max() < 1e-12
    wide = CircuitSpec(2400, 1, "chain", ("rz",))
    angles, states = torch.zeros(1, 1, 2400, 1, dtype=torch.float64), torch.ones(1, 2400, dtype=torch.int8)
    assert amplitudes(wide, angles, states).abs().max() < 1e-300


@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize(("n_qubits", "depth"), [(1, 2), (2, 2), (4, 1), (4, 2), (3, 3)])
def test_gradients_are_those_of_finite_differences(n_qubits, depth, entangle):
    spec, states = CircuitSpec(n_qubits, depth, entangle), basis_states(n_qubits)
    angles = angles_of(spec, 2, 3).requires_grad_()
    fast = {"fast_mode": True}
    assert torch.autograd.gradcheck(lambda a: torch.view_as_real(amplitudes(spec, a, states)), (angles,), **fast)


def test_gradients_flow_when_inference_mode_was_first_to_use_a_map():
    map_table.cache_clear()
    for spec in (CircuitSpec(4, 3, "ring"), CircuitSpec(4, 2, "all")):
        angles, states = angles_of(spec, 2, 1), basis_states(4)
        with torch.inference_mode():
            psi = amplitudes(spec, angles, states)
        tracked = angles.clone().requires_grad_()
        psi_tracked = amplitudes(spec, tracked, states)
        assert torch.equal(psi_tracked, psi)
        psi_tracked.real.sum().backward()
        assert tracked.grad.isfinite().all()


@settings(deadline=None, max_examples=40)
@given(specs(8, 3), seeds)
def test_float32_angles_give_complex64_that_is_close(spec, seed):
    angles, states = angles_of(spec, 3, seed), basis_states(spec.n_qubits)[:5]
    psi = amplitudes(spec, angles.float(), states)
    assert psi.dtype == torch.complex64
    assert (psi - amplitudes(spec, angles, states)).abs().max() < 1e-4


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_an_empty_batch_has_an_empty_answer_and_gradient(entangle):
    spec = CircuitSpec(3, 2, entangle)
    assert amplitudes(spec, torch.zeros(0, 2, 3, 2), basis_states(3)).shape == (0, 8)
    assert amplitudes(spec, torch.zeros(4, 2, 3, 2), basis_states(3)[:0]).shape == (4, 0)
    angles = torch.zeros(0, 2, 3, 2, requires_grad=True)
    amplitudes(spec, angles, basis_states(3)).real.sum().backward()
    assert angles.grad.shape == angles.shape


def test_angles_of_another_shape_or_kind_are_refused():
    with pytest.raises(ValueError, match="angles: got shape"):
        amplitudes(CircuitSpec(3), torch.zeros(1, 2, 4, 2), basis_states(3))
    with pytest.raises(ValueError, match="angles: got torch"):
        amplitudes(CircuitSpec(3), torch.zeros(1, 2, 3, 2, dtype=torch.int64), basis_states(3))


@pytest.mark.parametrize("shape", [(3,), (1, 4), (1, 1, 3)])
def test_basis_states_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="basis_states: got shape"):
        amplitudes(CircuitSpec(3), torch.zeros(1, 2, 3, 2), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("states", [[[0, 1, 2]], [[0, -1, 0]], [[0.0, 1, 1]], [[0j, 1, 1]]])
def test_basis_states_that_are_no_bits_are_refused(states):
    with pytest.raises(ValueError, match="allowed: integers or booleans, each 0 or 1"):
        amplitudes(CircuitSpec(3), torch.zeros(1, 2, 3, 2), torch.tensor(states))
