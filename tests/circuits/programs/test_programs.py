"""Compiled circuits: the kernel and its torch twin against Qiskit and dense matrices, to any derivative, in any cut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit.quantum_info import SparsePauliOp, Statevector
from support.any_circuits import N_INPUTS, N_WEIGHTS, random_circuit, random_pair
from support.circuits import seeds
from support.optimizers import NEEDS_COMPILER
from support.reference_circuits import dense_expectation, dense_state

from qsgd_ray.circuits.angles import inputs
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.circuit import Circuit
from qsgd_ray.circuits.gates import cx, cz, h, pauli_rotation, rx, ry
from qsgd_ray.circuits.observables import PauliSum
from qsgd_ray.circuits.programs import _native, run
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations, probabilities, statevector

N_SLOTS = N_INPUTS + N_WEIGHTS
ENGINES = pytest.mark.parametrize("engine", [pytest.param("kernel", marks=NEEDS_COMPILER), "torch"])


@pytest.fixture(autouse=True)
def of_engine(request, monkeypatch):
    """Let a test that names the engine torch do without the kernel."""
    if "engine" in request.fixturenames and request.getfixturevalue("engine") == "torch":
        monkeypatch.setattr(_native, "is_available", lambda: False)


def values_of(seed, batch, dtype=torch.float64):
    return torch.randn(batch, N_SLOTS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_sums(seed, n_qubits, count=2, length=3):
    draw = np.random.default_rng(seed)
    letters = lambda: "".join(draw.choice(list("IXYZ"), size=n_qubits))  # noqa: E731
    return [
        PauliSum(tuple((draw.normal(), letters(), tuple(range(n_qubits))) for _ in range(length))) for _ in range(count)
    ]


@ENGINES
@pytest.mark.parametrize("n_qubits", range(1, 11))
def test_circuits_of_all_gates_are_those_of_qiskit(engine, n_qubits):
    for seed in range(4):
        circuit, theirs = random_pair(seed, n_qubits, 60)
        values = values_of(seed, 3)
        sums = random_sums(seed, n_qubits)
        states, z, p = statevector(circuit, values), expectations(circuit, values), probabilities(circuit, values)
        of_sums = expectations(circuit, values, sums)
        for row, numbers in enumerate(values.numpy()):
            names = {parameter.name: parameter for parameter in theirs.parameters}
            given = {names[f"x[{i}]"]: numbers[i] for i in range(N_INPUTS) if f"x[{i}]" in names}
            given |= {names[f"w[{i}]"]: numbers[N_INPUTS + i] for i in range(N_WEIGHTS) if f"w[{i}]" in names}
            psi = Statevector(theirs.assign_parameters(given))
            assert np.abs(psi.data - states[row].numpy()).max() < 1e-12
            assert np.abs(psi.probabilities() - p[row].numpy()).max() < 1e-12
            for qubit in range(n_qubits):
                operator = SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0)], n_qubits)
                assert abs(psi.expectation_value(operator).real - z[row, qubit]) < 1e-12
            for number, one in enumerate(sums):
                terms = [(pauli, list(qubits), weight) for weight, pauli, qubits in one.terms]
                operator = SparsePauliOp.from_sparse_list(terms, n_qubits)
                assert abs(psi.expectation_value(operator).real - of_sums[row, number]) < 1e-12


@ENGINES
@settings(deadline=None, max_examples=40)
@given(seed=seeds, n_qubits=st.integers(1, 6))
def test_strings_of_any_length_and_global_phases_are_those_of_dense_matrices(engine, seed, n_qubits):
    circuit, values = random_circuit(seed, n_qubits, 20), values_of(seed, 2)
    (sums,) = random_sums(seed, n_qubits, 1)
    for row in range(2):
        psi = dense_state(circuit, values[row].numpy())
        assert np.abs(psi - statevector(circuit, values)[row].numpy()).max() < 1e-12
        exact = dense_expectation(psi, sums.terms)
        assert abs(exact - expectations(circuit, values, [sums])[row, 0]) < 1e-12


def _answers(circuit, values, seed):
    """Answers of every kind, and the gradient of a weighted sum of each."""
    results = []
    sums = random_sums(seed, circuit.n_qubits)
    for answer in (expectations, probabilities, statevector, lambda c, v: expectations(c, v, sums)):
        leaf = values.clone().requires_grad_()
        got = answer(circuit, leaf)
        real = torch.view_as_real(got) if got.is_complex() else got
        weights = torch.randn(real.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        results += [got.detach(), torch.autograd.grad((real * weights.to(real)).sum(), leaf)[0]]
    return results


# 9 qubits: a vector holds amplitudes of one circuit. 17: blocks that stay in the cache.
@NEEDS_COMPILER
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5, 8, 9, 10, 12])
def test_the_kernel_answers_as_its_twin_gradients_too(n_qubits, dtype, tolerance, monkeypatch):
    circuit, values = random_circuit(n_qubits, n_qubits, 40), values_of(1, 11, dtype)
    by_kernel = _answers(circuit, values, 2)
    monkeypatch.setattr(_native, "is_available", lambda: False)
    for one, twin in zip(by_kernel, _answers(circuit, values.double(), 2), strict=True):
        torch.testing.assert_close(one, twin.to(one.dtype), rtol=0, atol=tolerance)


@NEEDS_COMPILER
@pytest.mark.parametrize("spec", [CircuitSpec(17, 3, "ring"), CircuitSpec(18, 2, "all", ("rx", "rz"))], ids=str)
def test_states_in_blocks_are_those_of_the_twin(spec, monkeypatch):
    angles = torch.randn(spec.angles_shape(1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradient():
        leaf = angles.clone().requires_grad_()
        z = expectations(spec, leaf)
        return z.detach(), torch.autograd.grad((z * torch.linspace(-1, 1, spec.n_qubits)).sum(), leaf)[0]

    by_kernel = gradient()
    monkeypatch.setattr(_native, "is_available", lambda: False)
    for one, twin in zip(by_kernel, gradient(), strict=True):
        torch.testing.assert_close(one, twin, rtol=0, atol=1e-12)


@NEEDS_COMPILER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_qubits", [3, 6, 9, 11])
def test_bits_do_not_depend_on_batch_cut_order_or_threads(n_qubits, dtype):
    circuit, values = random_circuit(7, n_qubits, 30), values_of(3, 37, dtype)
    whole = _answers(circuit, values, 5)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    parts = [_answers(circuit, values[a:b], 5) for a, b in ((0, 1), (1, 20), (20, 37))]
    for one, permuted, *cut in zip(whole, _answers(circuit, values[order], 5), *parts, strict=True):
        assert torch.equal(permuted, one[order])
        assert torch.equal(torch.cat(cut), one)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, _answers(circuit, values, 5), whole))
    finally:
        torch.set_num_threads(threads)


@NEEDS_COMPILER
def test_bits_of_a_large_state_do_not_depend_on_threads():
    spec = CircuitSpec(17, 2, "ring")
    angles = torch.randn(spec.angles_shape(1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    answers, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = angles.clone().requires_grad_()
            z = expectations(spec, leaf)
            answers.append((z.detach(), torch.autograd.grad(z.sum(), leaf)[0]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for answer in answers[1:] for x, y in zip(answer, answers[0], strict=True))


@ENGINES
def test_derivatives_are_those_of_finite_differences_to_the_second_order(engine):
    circuit, sums = random_circuit(11, 3, 8), random_sums(1, 3)
    values = values_of(1, 2).requires_grad_()
    answers = {
        "z": lambda v: expectations(circuit, v),
        "sums": lambda v: expectations(circuit, v, sums),
        "probabilities": lambda v: probabilities(circuit, v),
        "states": lambda v: torch.view_as_real(statevector(circuit, v)),
    }
    for answer in answers.values():
        assert torch.autograd.gradcheck(answer, (values,))
        assert torch.autograd.gradgradcheck(answer, (values[:1].detach().requires_grad_(),), atol=1e-5)


@ENGINES
def test_a_third_derivative_is_right(engine):
    (x,) = inputs(1)
    circuit = Circuit.of(1, [ry(2 * x, 0)])  # <Z> = cos 2x
    values = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    slope = expectations(circuit, values).sum()
    for _ in range(3):
        (slope,) = torch.autograd.grad(slope.sum(), values, create_graph=True)
    assert abs(float(slope.detach()) - 8 * math.sin(0.6)) < 1e-12


def test_what_an_observable_does_not_see_is_not_simulated():
    spec = CircuitSpec(60, 2)
    circuit = Circuit.from_spec(spec)
    angles = torch.randn(spec.angles_shape(3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second, third = PauliSum(((0.5, "Z", (1,)),)), PauliSum(((1.0, "Z", (2,)),))
    z = expectations(circuit, angles.flatten(1), [third, second])
    twin = chain.expectations(spec, angles)
    torch.testing.assert_close(z, torch.stack((twin[:, 2], twin[:, 1] / 2), 1), rtol=0, atol=1e-12)


def test_a_rotation_that_nothing_sees_has_no_slope_and_costs_nothing():
    x = inputs(3)
    circuit = Circuit.of(2, [rx(x[0], 0), h(1), cx(0, 1), pauli_rotation("ZZ", x[1], (0, 1)), cz(0, 1), ry(x[2], 1)])
    program = run_program(circuit)
    assert len(program.rotations) <= 3
    values = torch.tensor([[0.4, 0.5, 0.6]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(expectations(circuit, values, [PauliSum(((1.0, "Z", (0,)),))]).sum(), values)
    assert slope[0, 1:].tolist() == [0, 0]
    assert abs(float(slope[0, 0]) + math.sin(0.4)) < 1e-14


def run_program(circuit):
    from qsgd_ray.circuits.statevector import simulate

    return simulate._program(circuit, simulate._sums(circuit.n_qubits, (PauliSum(((1.0, "Z", (0,)),)),)))


def test_circuits_without_slots_gates_or_circuits_are_answered():
    empty = Circuit(2, ())
    assert statevector(empty, torch.zeros(3, 0, dtype=torch.float64)).tolist() == [[1, 0, 0, 0]] * 3
    assert expectations(empty, torch.zeros(1, 0)).tolist() == [[1, 1]]
    assert expectations(random_circuit(0, 3, 5), torch.zeros(0, N_SLOTS)).shape == (0, 3)
    one = PauliSum(((2.0, "", ()),))
    assert expectations(empty, torch.zeros(1, 0), [one]).tolist() == [[2]]


@pytest.mark.parametrize(
    ("observables", "message"),
    [
        (["Z"], r"^observables\[0\]: got 'Z'; allowed: a PauliSum$"),
        ([PauliSum(((1.0, "Z", (3,)),))], r"^observables\[0\]: got qubit 3; allowed: 0 to 2$"),
    ],
)
def test_observables_of_another_circuit_are_refused(observables, message):
    with pytest.raises(ValueError, match=message):
        expectations(random_circuit(0, 3, 5), torch.zeros(1, N_SLOTS), observables)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ((1.0, "Z"), r"^PauliSum\.terms: got \(1\.0, 'Z'\); allowed: \(weight, pauli, qubits\)$"),
        ((1.0, "A", (0,)), r"^PauliSum\.terms: got 'A'; allowed: letters X, Y, Z and I, one for each of the qubits "),
        ((1.0, "ZZ", (0,)), r"^PauliSum\.terms: got 'ZZ'; allowed: letters"),
        ((1.0, "ZZ", (0, 0)), r"^PauliSum\.terms: got qubits \(0, 0\); allowed: distinct ones$"),
        ((float("nan"), "Z", (0,)), r"^PauliSum\.terms: weight: got nan; allowed"),
        ((1.0, "Z", (-1,)), r"^PauliSum\.terms: qubit: got -1; allowed: a whole number >= 0$"),
    ],
)
def test_terms_that_are_none_are_refused(term, message):
    with pytest.raises(ValueError, match=message):
        PauliSum((term,))


def test_an_operator_of_qiskit_is_a_sum():
    operator = SparsePauliOp.from_sparse_list([("XY", [1, 2], 0.5), ("", [], 2.0)], 3)
    assert set(PauliSum.from_qiskit(operator).terms) == {(0.5, "XY", (1, 2)), (2.0, "", ())}
    with pytest.raises(ValueError, match=r"^PauliSum\.from_qiskit: got the coefficient .*; allowed: real numbers$"):
        PauliSum.from_qiskit(SparsePauliOp(["Z"], [1j]))


def test_shifts_are_taken_in_parts_of_bounded_memory(monkeypatch):
    circuit, values = random_circuit(2, 2, 6), values_of(0, 1)

    def penalty():
        leaf = values.clone().requires_grad_()
        (slope,) = torch.autograd.grad(expectations(circuit, leaf).sum(), leaf, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), leaf)[0]

    whole = penalty()
    monkeypatch.setattr(run, "_SHIFTED_NUMBERS", 1)
    torch.testing.assert_close(penalty(), whole, rtol=0, atol=1e-12)
