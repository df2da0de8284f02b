import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.any_circuits import distance, random_circuit, random_values, reordered
from support.circuits import angles_of, seeds, specs
from support.reference_circuits import dense_state, state

from qsgd_ray.circuits.angles import Angle, inputs, weights
from qsgd_ray.circuits.circuit import Circuit
from qsgd_ray.circuits.gates import Gate, cx, h, phase, rx, ry, rzz
from qsgd_ray.circuits.qiskit_circuits import from_qiskit
from qsgd_ray.circuits.spec import CircuitSpec

circuits = st.builds(random_circuit, seeds, st.integers(1, 5), st.integers(0, 30))


def test_a_circuit_is_a_value():
    (x,), (w,) = inputs(1), weights(1)
    one, other = (Circuit.of(2, [h(0), [ry(x + w, 0), cx(0, 1)]]) for _ in range(2))
    assert one == other
    assert len({one, other, one.product()}) == 2
    assert (one.n_inputs, one.n_weights, one.n_slots, one.n_rotations) == (1, 1, 2, 1)
    assert Circuit.of(2, [h(0)], n_inputs=3, n_weights=1).n_slots == 4
    assert (one.answer_width("z"), one.answer_width("probability")) == (2, 1)
    assert one.product().gates == (*h(0), *ry(x + w, 0))


@given(circuits)
def test_a_circuit_goes_through_json_and_pickle_unchanged(circuit):
    hash(circuit)
    assert Circuit.from_json(json.loads(json.dumps(circuit.to_json()))) == circuit
    assert pickle.loads(pickle.dumps(circuit)) == circuit


def test_a_pickled_circuit_has_the_hash_of_the_process_that_reads_it():
    circuit = Circuit.of(1, [h(0)])
    hash(circuit)
    script = (
        "import pickle, sys; from qsgd_ray.circuits.circuit import Circuit; from qsgd_ray.circuits.gates import h\n"
        "assert pickle.loads(bytes.fromhex(sys.argv[1])) in {Circuit.of(1, [h(0)])}"
    )
    subprocess.run([sys.executable, "-c", script, pickle.dumps(circuit).hex()], check=True)


@given(circuits, seeds)
def test_unshared_with_the_angles_of_a_circuit_is_the_circuit(circuit, seed):
    values_s = random_values(seed, circuit)
    angles_k = circuit.angles(torch.from_numpy(values_s)[None])[0]
    own = circuit.unshared()
    assert (own.n_slots, own.n_weights) == (circuit.n_rotations, 0)
    assert torch.equal(own.angles(angles_k[None])[0], angles_k)
    assert distance(dense_state(own, angles_k.numpy()), dense_state(circuit, values_s)) < 1e-12


@given(circuits, seeds)
def test_the_rows_of_a_batch_have_the_angles_and_the_gradient_of_one(circuit, seed):
    values_bs = torch.tensor(np.stack([random_values((seed, row), circuit) for row in range(3)]), requires_grad=True)
    angles_bk = circuit.angles(values_bs)
    assert angles_bk.shape == (3, circuit.n_rotations)
    assert torch.equal(angles_bk[1:2], circuit.angles(values_bs[1:2]))
    offsets, rows, slots, factors = circuit.angle_map
    matrix_ks = np.zeros((circuit.n_rotations, circuit.n_slots))
    np.add.at(matrix_ks, (rows, slots), factors)
    expected = values_bs.detach().numpy() @ matrix_ks.T + offsets
    np.testing.assert_allclose(angles_bk.detach().numpy(), expected, atol=1e-12)
    (gradient_bs,) = torch.autograd.grad(angles_bk.sum(), values_bs)
    np.testing.assert_allclose(gradient_bs[2].numpy(), matrix_ks.sum(0), atol=1e-12)
    assert circuit.angles(values_bs[:0]).shape == (0, circuit.n_rotations)
    assert circuit.angles(values_bs.float()).dtype == torch.float32


@given(specs(5, 3))
def test_the_circuit_of_a_spec_has_its_state_and_its_angles_as_inputs(spec):
    circuit = Circuit.from_spec(spec)
    angles_bdnr = angles_of(spec, batch=1)
    values_s = angles_bdnr.flatten(1)[0].numpy()
    expected = state(spec.n_qubits, spec.depth, spec.entangle, angles_bdnr[0].numpy(), spec.rotations)
    assert distance(dense_state(circuit, values_s), expected) < 1e-12


@given(specs(5, 3), seeds, st.booleans())
def test_a_spec_is_told_in_any_order_of_its_gates_and_from_qiskit(spec, seed, through_qiskit):
    plain = Circuit.from_spec(spec)
    if through_qiskit:
        plain = from_qiskit(plain.to_qiskit())
    draw = np.random.default_rng(seed)
    x, w = inputs(2), weights(3)
    angles = [draw.normal() * x[draw.integers(2)] + draw.normal() * w[draw.integers(3)] + 1 for _ in plain.rotations]
    own = iter(angles)
    gates = [Gate(g.name, g.qubits, next(own), g.pauli) if g.angle else g for g in plain.gates]
    circuit = Circuit(spec.n_qubits, reordered(seed, gates), 2, 3)
    found, numbers_dnr = circuit.as_spec()
    if "cx" in {gate.name for gate in gates}:
        assert (found.depth, found.rotations, found.cnots()) == (spec.depth, spec.rotations, spec.cnots())
    values_s = random_values(seed, circuit)
    angles_dnr = circuit.angles(torch.from_numpy(values_s)[None])[:, numbers_dnr][0]
    assert angles_dnr.shape == found.angles_shape(1)[1:]
    expected = state(found.n_qubits, found.depth, found.entangle, angles_dnr.numpy(), found.rotations)
    assert distance(dense_state(circuit, values_s), expected) < 1e-12


def test_angles_of_a_spec_keep_their_order():
    spec = CircuitSpec(3, 2, "ring", ("rz", "rx", "rz"))
    circuit = Circuit.from_spec(spec)
    found, numbers_dnr = circuit.as_spec()
    angles_bdnr = angles_of(spec)
    assert found == spec
    assert torch.equal(circuit.angles(angles_bdnr.flatten(1))[:, numbers_dnr], angles_bdnr)


@given(specs(4, 2), seeds)
def test_a_circuit_with_one_gate_more_less_or_elsewhere_is_no_such_spec(spec, seed):
    draw = np.random.default_rng(seed)
    gates = list(Circuit.from_spec(spec).gates)
    place = draw.integers(len(gates))
    changes = {
        "less": [*gates[:place], *gates[place + 1 :]],
        "other": [*gates[:place], Gate("x", (0,)), *gates[place + 1 :]],
        "phase": [*gates, *phase(1.0)],
        "string": [*gates, *rzz(1.0, 0, 1)] if spec.n_qubits > 1 else [],
    }
    for changed in changes.values():
        circuit = Circuit.of(spec.n_qubits, changed)
        found = circuit.as_spec()
        assert found is None or found[0] != spec


def test_what_is_no_spec_is_none():
    x = inputs(4)
    assert Circuit.of(2, [h(0), h(1), cx(0, 1)]).as_spec() is None
    assert Circuit.of(1, [ry(x[0], 0), h(0)]).as_spec() is None
    assert Circuit.of(2, [h(0), h(1), ry(x[0], 0), rx(x[1], 1), cx(0, 1)]).as_spec() is None
    assert Circuit.of(2, [h(0), h(1), ry(x[0], 0), ry(x[1], 1), cx(1, 0)]).as_spec() is None
    assert Circuit(1, ()).as_spec() is None


def test_a_drawing_names_the_slots():
    (x,), (w,) = inputs(1), weights(1)
    circuit = Circuit.of(3, [h(0), ry(x + 1, 0), cx(0, 1), rzz(w, 1, 2)])
    drawing = circuit.draw()
    assert "x[0]" in drawing
    assert "w[0]" in drawing
    assert len(circuit.draw(width=20).splitlines()) > len(drawing.splitlines())


GATE = {"name": "rotation", "qubits": [0], "pauli": "X", "offset": 0.0, "terms": []}


def stored(**changes):
    return {"version": 1, "n_qubits": 1, "n_inputs": 0, "n_weights": 0, "gates": []} | changes


REFUSED = {
    "Circuit.n_qubits: got 0; allowed: a whole number >= 1": lambda: Circuit(0, ()),
    "Circuit.n_inputs: got -1; allowed: a whole number >= 0": lambda: Circuit(1, (), -1),
    "Circuit.gates[1]: cx got qubit 2; allowed: 0 to 1": lambda: Circuit.of(2, [h(0), cx(1, 2)]),
    "Circuit.gates[0]: got 'h'; allowed: a Gate": lambda: Circuit.of(2, ["h"]),
    "Circuit.gates[0]: rotation got input 1; allowed: below 1, the circuit's n_inputs": lambda: Circuit.of(
        1, rx(inputs(2)[1], 0), n_inputs=1
    ),
    "values: got shape (2,); allowed for 1 inputs and 0 weights: (batch, 1)": lambda: Circuit(1, (), 1).angles(
        torch.zeros(2)
    ),
    "values: got torch.int64; allowed: a real floating-point tensor": lambda: Circuit(1, (), 1).check_values(
        torch.zeros(2, 1, dtype=torch.int64)
    ),
    "values: got shape (2,); allowed for one circuit: (1,)": lambda: Circuit(1, (), 1).to_qiskit([1, 2]),
    "Circuit: got list; allowed: a dict of gates, n_inputs,": lambda: Circuit.from_json([]),
    "Circuit: got fields frob, gates,": lambda: Circuit.from_json(stored(frob=1)),
    "Circuit.version: got 2; allowed: 1": lambda: Circuit.from_json(stored(version=2)),
    "Circuit.gates: got int; allowed: a list": lambda: Circuit.from_json(stored(gates=1)),
    "Circuit.gates[0]: got fields name; allowed: a dict of name, qubits": lambda: Circuit.from_json(
        stored(gates=[{"name": "h"}])
    ),
    "Circuit.gates[0]: got fields name, offset, pauli, qubits; allowed: a dict of name, offset,": lambda: (
        Circuit.from_json(stored(gates=[{key: GATE[key] for key in GATE if key != "terms"}]))
    ),
    "Circuit.gates[0]: got {'name': 'h', 'qubits': 0}; allowed: a name, lists of": lambda: Circuit.from_json(
        stored(gates=[{"name": "h", "qubits": 0}])
    ),
    "Circuit.gates[0]: got {'name': 'rotation'": lambda: Circuit.from_json(stored(gates=[GATE | {"terms": [1]}])),
    "Circuit.gates[0]: Angle.offset: got 'a'; allowed:": lambda: Circuit.from_json(
        stored(gates=[GATE | {"offset": "a"}])
    ),
    "Circuit.gates[0]: Gate.name: got 'frob'; allowed:": lambda: Circuit.from_json(
        stored(gates=[{"name": "frob", "qubits": [0]}])
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_circuit_is_refused_in_one_line(message):
    with pytest.raises(ValueError) as refusal:
        REFUSED[message]()
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_a_gate_without_terms_is_a_number():
    assert Circuit.from_json(stored(gates=[GATE])).gates == (Gate("rotation", (0,), Angle(), "X"),)
