import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from qiskit import QuantumCircuit
from qiskit.circuit.library import n_local
from qiskit.quantum_info import Operator
from support.circuits import specs

from qsgd_ray.circuits.spec import CircuitSpec

RY, RZ = 0, 1


def test_specs_are_values():
    assert CircuitSpec(4) == CircuitSpec(4, 2, True)
    assert len({CircuitSpec(4), CircuitSpec(4, depth=2), CircuitSpec(4, entangle=False)}) == 2
    assert repr(CircuitSpec(3, 1, False)) == (
        "CircuitSpec(n_qubits=3, depth=1, entangle='none', rotations=('ry', 'rz'))"
    )
    assert CircuitSpec(4, entangle=True) == CircuitSpec(4, rotations=["ry", "rz"]) == CircuitSpec(4, entangle="chain")
    assert pickle.loads(pickle.dumps(CircuitSpec(5))) == CircuitSpec(5)


def test_layers_are_those_of_the_paper():
    layers = list(CircuitSpec(3, depth=2).layers())
    every = ((0,), (1,), (2,))
    assert layers == [
        ("h", every, None),
        ("ry", every, (0, RY)),
        ("rz", every, (0, RZ)),
        ("cx", ((0, 1), (1, 2)), None),
        ("ry", every, (1, RY)),
        ("rz", every, (1, RZ)),
        ("cx", ((0, 1), (1, 2)), None),
    ]


@pytest.mark.parametrize(
    ("entangle", "cnots"),
    [
        ("none", ()),
        ("chain", ((0, 1), (1, 2), (2, 3))),
        ("ring", ((0, 1), (1, 2), (2, 3), (3, 0))),
        ("all", ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))),
    ],
)
def test_entangling_gates_are_those_of_their_kind(entangle, cnots):
    assert CircuitSpec(4, entangle=entangle).cnots() == cnots
    assert CircuitSpec(1, entangle=entangle).cnots() == ()


def test_all_is_qiskit_s_full_entanglement_and_equals_the_chain_backwards():
    # The chain backwards needs n-1 gates, and one bit between neighbours: the chain engine builds on that.
    full = n_local(5, [], "cx", entanglement="full", reps=1, skip_final_rotation_layer=True)
    every_pair, backwards = QuantumCircuit(5), QuantumCircuit(5)
    for control, target in CircuitSpec(5, entangle="all").cnots():
        every_pair.cx(control, target)
    for control in reversed(range(4)):
        backwards.cx(control, control + 1)
    assert Operator(every_pair) == Operator(full) == Operator(backwards)


@given(specs(6, 4))
def test_the_hadamards_open_the_circuit_and_come_nowhere_else(spec):
    # The simulator relies on it: H meets |0...0> only.
    assert [layer.gate == "h" for layer in spec.layers()].index(True) == 0
    assert sum(layer.gate == "h" for layer in spec.layers()) == 1


@given(specs(6, 4))
def test_qiskit_twin_has_the_gates_of_the_layers_in_order(spec):
    angles = np.random.default_rng(0).normal(size=spec.angles_shape(1)[1:])
    built = [
        (gate.operation.name, tuple(qubit._index for qubit in gate.qubits), list(gate.operation.params))
        for gate in spec.to_qiskit(angles).data
    ]
    expected = [
        (layer.gate, targets, [] if layer.angle is None else [angles[layer.angle[0], targets[0], layer.angle[1]]])
        for layer in spec.layers()
        for targets in layer.targets
    ]
    assert built == expected


def test_qiskit_twin_takes_tensors_arrays_lists_and_a_batch_of_one():
    spec = CircuitSpec(2, 1)
    angles = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]], requires_grad=True)
    circuits = [spec.to_qiskit(same) for same in (angles, angles[None], angles.detach().numpy(), angles.tolist())]
    assert all(circuit == circuits[0] for circuit in circuits)


def test_drawing_names_every_angle():
    drawing = CircuitSpec(2, depth=2).draw()
    for name in ("a[0,0]", "a[1,1]", "b[0,1]", "b[1,0]"):
        assert name in drawing
    assert drawing.count("H") == 2
    assert drawing.count("■") == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"n_qubits": 0}, "CircuitSpec.n_qubits: got 0; allowed: a whole number >= 1"),
        ({"n_qubits": 2.0}, "CircuitSpec.n_qubits: got 2.0; allowed: a whole number >= 1"),
        ({"n_qubits": True}, "CircuitSpec.n_qubits: got True; allowed: a whole number >= 1"),
        ({"n_qubits": 2, "depth": 0}, "CircuitSpec.depth: got 0; allowed: a whole number >= 1"),
        ({"n_qubits": 2, "entangle": 1}, "CircuitSpec.entangle: got 1; allowed: chain, ring, all, none, True or False"),
        ({"n_qubits": 2, "rotations": ()}, "CircuitSpec.rotations: got (); allowed: one or more of rx, ry, rz"),
        ({"n_qubits": 2, "rotations": ("h",)}, "CircuitSpec.rotations: got ('h',); allowed: one or more of rx, ry, rz"),
        ({"n_qubits": 2, "rotations": "ry"}, "CircuitSpec.rotations: got 'ry'; allowed: one or more of rx, ry, rz"),
    ],
)
def test_bad_specs_are_refused_in_one_line(bad, message):
    with pytest.raises(ValueError) as error:
        CircuitSpec(**bad)
    assert str(error.value) == message


@pytest.mark.parametrize("shape", [(2, 3, 2), (5, 2, 3), (5, 2, 4, 2), (5, 1, 3, 2), (5, 2, 3, 3)])
def test_angles_of_another_shape_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"angles: got shape .*; allowed for CircuitSpec\(n_qubits=3.*\(batch, 2, 3, 2\)"
    ):
        CircuitSpec(3).check_angles(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_angles_that_are_no_floats_are_refused(dtype):
    with pytest.raises(ValueError, match=r"angles: got torch.*; allowed: a real floating-point tensor"):
        CircuitSpec(3).check_angles(torch.zeros(1, 2, 3, 2, dtype=dtype))


def test_qiskit_twin_refuses_angles_of_another_shape():
    with pytest.raises(ValueError, match=r"angles: got shape \(2, 2, 3, 2\); allowed for one CircuitSpec"):
        CircuitSpec(3).to_qiskit(np.zeros((2, 2, 3, 2)))
