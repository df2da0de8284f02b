import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.any_circuits import ANGLES, QUBITS, distance, qiskit_state
from support.reference_circuits import dense_expectation, dense_state

from qsgd_ray.circuits import gates
from qsgd_ray.circuits.angles import Angle, Term, inputs, weights
from qsgd_ray.circuits.circuit import Circuit
from qsgd_ray.circuits.gates import Gate, cx, h, pauli_rotation, phase, rx, ry, rz, su4

numbers = st.floats(-100, 100).filter(lambda number: number == 0 or abs(number) > 1e-3)
terms = st.tuples(st.sampled_from(["input", "weight"]), st.integers(0, 3), numbers)
angles = st.builds(Angle, numbers, st.lists(terms, max_size=5).map(tuple))


def value(angle):
    """Return the number of an angle at a fixed point."""
    return angle.offset + sum(f * math.sin(slot + 3.1 * (kind == "input")) for kind, slot, f in angle.terms)


@given(angles, angles, numbers)
def test_angles_are_added_and_scaled_as_their_numbers_are(a, b, number):
    close = {"abs": 1e-6, "rel": 1e-9}
    assert value(a + b) == pytest.approx(value(a) + value(b), **close)
    assert value(a - b) == pytest.approx(value(a) - value(b), **close)
    assert value(number - a) == pytest.approx(number - value(a), **close)
    assert value(np.float64(number) * a) == value(a * number) == pytest.approx(number * value(a), **close)
    if number:
        assert value(a / number) == pytest.approx(value(a) / number, **close)
    assert a - a == Angle()
    assert a + b == b + a
    assert sum([a, b]) == a + b


def test_angles_have_one_form():
    (x,), (w,) = inputs(1), weights(1)
    assert w + x - w + 1 == Angle(1.0, (Term("input", 0, 1.0),))
    assert Angle(0.0, (("weight", 0, 2), ("input", 0, 1), ("weight", 0, -2))) == x
    assert hash(x * 2) == hash(x + x)


def test_rotations_have_one_form():
    assert (
        pauli_rotation("XIZ", 1, [2, 1, 0])
        == pauli_rotation("ZX", 1.0, [0, 2])
        == (Gate("rotation", (0, 2), Angle(1.0), "ZX"),)
    )
    assert pauli_rotation("I", 2, [3]) == phase(-1)
    assert rx(np.float32(0.5), np.int64(1)) == rx(0.5, 1)


@pytest.mark.parametrize("name", ANGLES)
def test_each_gate_is_qiskit_s_with_its_phase(name):
    from qiskit import QuantumCircuit

    turns = [0.3, 1.1, -0.7][: ANGLES[name]]
    for qubits in ([0, 1], [2, 0]) if QUBITS.get(name, 2) == 2 else ([0], [1]):
        theirs = QuantumCircuit(3)
        ours = []
        for qubit in range(3):
            theirs.ry(qubit + 0.4, qubit)
            theirs.rz(qubit + 0.9, qubit)
            ours += [ry(qubit + 0.4, qubit), rz(qubit + 0.9, qubit)]
        getattr(theirs, name)(*turns, *qubits)
        ours.append(getattr(gates, name)(*turns, *qubits))
        assert distance(dense_state(Circuit.of(3, ours), []), qiskit_state(theirs)) < 1e-14


def test_a_string_s_letters_are_those_of_its_qubits():
    psi = dense_state(Circuit.of(3, [h(0), h(1), h(2), pauli_rotation("XZY", 0.8, (2, 0, 1))]), [])
    expected = math.sin(0.8)  # exp(-iaP/2) turns X_0 towards i P X_0 = -(Z X)_0 Y_1 X_2 / i
    assert dense_expectation(psi, [(1.0, "X", (0,))]) == pytest.approx(math.cos(0.8))
    assert abs(dense_expectation(psi, [(1.0, "YYX", (0, 1, 2))])) <= expected + 1e-12


def test_su4_is_its_fifteen_rotations():
    turns = [0.1 * (i + 1) for i in range(15)]
    circuit = Circuit.of(2, su4(weights(15), 1, 0))
    assert (circuit.n_weights, circuit.n_rotations) == (15, 15)
    order = [rz, ry, rz]
    one_by_one = [
        *(gate(angle, 1) for gate, angle in zip(order, turns[:3], strict=True)),
        *(gate(angle, 0) for gate, angle in zip(order, turns[3:6], strict=True)),
        gates.rxx(turns[6], 1, 0),
        gates.ryy(turns[7], 1, 0),
        gates.rzz(turns[8], 1, 0),
        *(gate(angle, 1) for gate, angle in zip(order, turns[9:12], strict=True)),
        *(gate(angle, 0) for gate, angle in zip(order, turns[12:], strict=True)),
    ]
    assert np.array_equal(dense_state(circuit, turns), dense_state(Circuit.of(2, one_by_one), []))


REFUSED = {
    "Gate.name: got 'frob'; allowed: h, x,": lambda: Gate("frob", (0,)),
    "Gate cx: got qubits (1, 1); allowed: distinct ones": lambda: cx(1, 1),
    "Gate cx: got 1 qubits; allowed: 2": lambda: Gate("cx", (0,)),
    "Gate h: qubit: got -1; allowed: a whole number >= 0": lambda: h(-1),
    "Gate h: qubit: got 0.5; allowed: a whole number >= 0": lambda: h(0.5),
    "Gate h: got angle=Angle(offset=1.0, terms=()); allowed: None": lambda: Gate("h", (0,), Angle(1.0)),
    "Gate h: got pauli='X'; allowed: None": lambda: Gate("h", (0,), None, "X"),
    "Gate rotation: got pauli=None; allowed: a string of X, Y, Z and I, 1 letters": lambda: Gate("rotation", (0,), 1),
    "Gate rotation: got pauli='XQ'; allowed: a string of": lambda: pauli_rotation("XQ", 1.0, (0, 1)),
    "Gate rotation: got pauli='XX'; allowed: a string of": lambda: pauli_rotation("XX", 1.0, (0,)),
    "Gate rotation: angle: got None; allowed: a finite number": lambda: Gate("rotation", (0,), None, "X"),
    "angle: got nan; allowed: a finite number": lambda: rx(math.nan, 0),
    "angle: got 'a'; allowed: a finite number": lambda: rx("a", 0),
    "su4: got 3 angles; allowed: 15": lambda: su4([1.0] * 3, 0, 1),
    "Angle.offset: got inf; allowed: a finite number": lambda: Angle(math.inf),
    "Angle.terms: got kind 'bias'; allowed: input, weight": lambda: Angle(0.0, (("bias", 0, 1.0),)),
    "Angle.terms: slot: got -1; allowed: a whole number >= 0": lambda: Angle(0.0, (("input", -1, 1.0),)),
    "Angle.terms: factor: got True; allowed: a finite number": lambda: Angle(0.0, (("input", 0, True),)),
    "Angle: + number: got 'a'; allowed: a finite number": lambda: inputs(1)[0] + "a",
    "Angle: * number: got Angle(": lambda: inputs(2)[0] * inputs(2)[1],
    "Angle: / number: got 0; allowed: any other finite number": lambda: inputs(1)[0] / 0,
    "inputs: got -1; allowed: a whole number >= 0": lambda: inputs(-1),
    "weights: got 'a'; allowed: a whole number >= 0": lambda: weights("a"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_gate_or_no_angle_is_refused_in_one_line(message):
    with pytest.raises(ValueError) as refusal:
        REFUSED[message]()
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
