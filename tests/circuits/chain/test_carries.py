import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator, Pauli
from support.circuits import angles_of, rotation_tuples, seeds

from qsgd_ray.circuits.chain._cnot_tables import AMPLITUDE, BLOCH
from qsgd_ray.circuits.chain.expectations import expectations
from qsgd_ray.circuits.spec import CircuitSpec


def test_the_carries_add_up_to_a_cnot():
    # Pauli components: entry (P, Q) of the CNOT's superoperator is tr(P CNOT Q CNOT) / 4. Qiskit puts qubit 1 first.
    cnot = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]])
    labels = [(control, target) for control in "IXYZ" for target in "IXYZ"]
    paulis = [Operator(Pauli(target + control)).data for control, target in labels]
    exact = [[np.trace(p @ cnot @ q @ cnot).real / 4 for q in paulis] for p in paulis]
    added = sum(np.kron(c, t) for c, t in zip(BLOCH.control, BLOCH.target, strict=True))
    assert np.array_equal(added, np.array(exact))
    real = sum(np.kron(c[:2, :2], t[:2, :2]) for c, t in zip(AMPLITUDE.control, AMPLITUDE.target, strict=True))
    assert np.array_equal(real, np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]))


@pytest.mark.parametrize("n_qubits", [2, 3, 6])
def test_all_pairs_in_order_are_one_descending_chain(n_qubits):
    pairs, chain = QuantumCircuit(n_qubits), QuantumCircuit(n_qubits)
    for control, target in CircuitSpec(n_qubits, 1, "all").cnots():
        pairs.cx(control, target)
    for control in reversed(range(n_qubits - 1)):
        chain.cx(control, control + 1)
    assert np.array_equal(Operator(pairs).data, Operator(chain).data)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 4), rotation_tuples, seeds, st.data())
def test_a_qubit_of_a_chain_depends_on_no_wire_beyond_the_next_depth_minus_one(n_qubits, depth, rotations, seed, data):
    spec = CircuitSpec(n_qubits, depth, "chain", rotations)
    angles = angles_of(spec, 1, seed)
    wire = data.draw(st.integers(0, n_qubits - 1))
    other = angles.clone()
    other[:, :, wire] += 1
    before = max(0, wire - depth + 1)
    assert torch.equal(expectations(spec, angles)[:, :before], expectations(spec, other)[:, :before])


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 4), rotation_tuples, seeds, st.data())
def test_a_qubit_of_all_pairs_depends_on_no_wire_before_the_last_depth(n_qubits, depth, rotations, seed, data):
    spec = CircuitSpec(n_qubits, depth, "all", rotations)
    angles = angles_of(spec, 1, seed)
    wire = data.draw(st.integers(0, n_qubits - 1))
    other = angles.clone()
    other[:, :, wire] += 1
    behind = wire + depth + 1
    assert torch.equal(expectations(spec, angles)[:, behind:], expectations(spec, other)[:, behind:])
