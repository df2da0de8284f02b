import builtins
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import (
    PauliEvolutionGate,
    UnitaryGate,
    efficient_su2,
    n_local,
    qaoa_ansatz,
    real_amplitudes,
    z_feature_map,
    zz_feature_map,
)
from qiskit.quantum_info import Operator, SparsePauliOp, random_unitary
from support.any_circuits import (
    N_INPUTS,
    N_WEIGHTS,
    distance,
    qiskit_state,
    random_circuit,
    random_pair,
    random_values,
)
from support.circuits import seeds
from support.reference_circuits import dense_state

from qsgd_ray.circuits._to_qiskit import split_phase
from qsgd_ray.circuits.angles import Angle, inputs, weights
from qsgd_ray.circuits.circuit import Circuit
from qsgd_ray.circuits.gates import h, phase, rx, ry
from qsgd_ray.circuits.qiskit_circuits import from_qasm, from_qiskit

SLOTS = [f"x[{i}]" for i in range(N_INPUTS)], [f"w[{i}]" for i in range(N_WEIGHTS)]


def numbers(circuit, values_s):
    """Return the values of the parameters x[i] and w[i] that a QuantumCircuit has, by parameter."""
    return {p: values_s[p.index + (p.name[0] == "w") * N_INPUTS] for p in circuit.parameters}


def own(names, circuit):
    return [name for name in names if name in {parameter.name for parameter in circuit.parameters}]


def vectors(circuit):
    """Return the whole vectors x and w of a QuantumCircuit, unused elements too."""
    found = {parameter.vector.name: parameter.vector for parameter in circuit.parameters}
    return {"inputs": found.get("x", []), "weights": found.get("w", [])}


@pytest.mark.parametrize("n_qubits", range(1, 11))
def test_random_circuits_of_all_gates_have_qiskit_s_state(n_qubits):
    ours, theirs = random_pair(n_qubits, n_qubits, 60)
    values_s = random_values(n_qubits, ours)
    expected = qiskit_state(theirs, numbers(theirs, values_s))
    assert distance(dense_state(ours, values_s), expected) < 1e-12
    strings = random_circuit(n_qubits, n_qubits, 40)
    assert distance(dense_state(strings, values_s), qiskit_state(strings.to_qiskit(values_s))) < 1e-12


def test_200_random_circuits_with_parameters_are_imported_with_their_state():
    for seed in range(200):
        n_qubits = seed % 4 + 1
        _, theirs = random_pair(seed, n_qubits, 25)
        theirs.global_phase = seed / 7 if seed % 3 else next(iter(theirs.parameters), 0) / 2
        ours = from_qiskit(theirs)
        values_s = np.random.default_rng(seed).normal(size=ours.n_weights)
        expected = qiskit_state(theirs, dict(zip(theirs.parameters, values_s, strict=True)))
        assert distance(dense_state(ours, values_s), expected) < 1e-12


@given(st.builds(random_circuit, seeds, st.integers(1, 5), st.integers(0, 25)))
def test_a_circuit_goes_through_qiskit_unchanged_but_for_one_phase_at_its_end(circuit):
    theirs = circuit.to_qiskit()
    back = from_qiskit(theirs, **vectors(theirs))
    gates, total = split_phase(circuit.gates)
    again, total_again = split_phase(back.gates)
    assert again == gates
    assert total_again.terms == total.terms
    assert math.cos(total_again.offset - total.offset) == pytest.approx(1, abs=1e-12)
    assert total == Angle() or back.gates[-1].pauli == ""


def test_parameters_are_named_inputs_or_weights_in_any_order():
    x, a, b = ParameterVector("x", 3), Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1)
    for parameter in (b, x[1], a, x[0]):
        circuit.rx(parameter, 0)
    x_, w = inputs(3), weights(4)

    def turned(*angles):
        return tuple(gate for angle in angles for gate in rx(angle, 0))

    assert from_qiskit(circuit).gates == turned(w[1], w[3], w[0], w[2])
    assert from_qiskit(circuit, inputs=x).gates == turned(w[1], x_[1], w[0], x_[0])
    assert from_qiskit(circuit, inputs=x).n_inputs == 3
    assert from_qiskit(circuit, weights=[b, "a"]).gates == turned(w[0], x_[1], w[1], x_[0])
    assert from_qiskit(circuit, inputs=[x[0], "b"], weights=(a, x[1])).gates == turned(x_[1], w[1], w[0], x_[0])
    many = ParameterVector("many", 12)
    wide = QuantumCircuit(1)
    for parameter in many:
        wide.rx(parameter, 0)
    assert from_qiskit(wide).gates == turned(*weights(12))


def test_affine_expressions_keep_their_coefficients():
    a, b = Parameter("a"), Parameter("b")
    w = weights(2)
    circuit = QuantumCircuit(1)
    for angle in (2 * (a + b) / 4 - 1, -a, a - a + 0.5, (3 * a + 1).assign(a, b * 2), a + 1 - a + b):
        circuit.ry(angle, 0)
    expected = (w[0] / 2 + w[1] / 2 - 1, -w[0], 0.5, 6 * w[1] + 1, w[1] + 1)
    assert from_qiskit(circuit).gates == tuple(gate for angle in expected for gate in ry(angle, 0))


def test_gates_that_are_not_ours_are_taken_by_their_definitions():
    t = Parameter("t")
    inner = QuantumCircuit(2, name="rx")  # another gate with a known name
    inner.h(0)
    inner.crx(t, 0, 1)
    inner.global_phase = t / 3
    circuit = QuantumCircuit(4)
    circuit.append(inner.to_gate(), [2, 0])
    circuit.append(inner.copy("own").to_gate({t: 0.3}).control(1, ctrl_state=0), [3, 1, 2])
    circuit.ccx(0, 1, 2)
    circuit.cswap(3, 0, 1)
    circuit.mcp(t, [0, 1, 2], 3)
    circuit.cu(0.1, 0.2, 0.3, 0.4, 2, 1)
    circuit.r(t, 0.4, 0)
    circuit.iswap(0, 3)
    circuit.ecr(1, 2)
    circuit.rzx(2 * t, 3, 0)
    circuit.append(UnitaryGate(random_unitary(4, seed=1)), [3, 1])
    circuit.append(PauliEvolutionGate(SparsePauliOp(["XYZ"], [0.7]), time=t), [3, 0, 1])
    circuit.append(PauliEvolutionGate(SparsePauliOp(["ZZI", "IZZ", "III"], [1, -2, 3]), time=t), [0, 2, 3])
    circuit.id(0)
    expected = qiskit_state(circuit.decompose("PauliEvolution"), {t: 0.37})
    assert distance(dense_state(from_qiskit(circuit), [0.37]), expected) < 1e-12


def test_measurements_at_the_end_and_barriers_are_dropped():
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.barrier()
    circuit.measure(0, 0)
    circuit.h(1)
    circuit.delay(10, 0)
    circuit.barrier()
    circuit.measure(1, 1)
    circuit.measure(0, 1)
    assert from_qiskit(circuit) == Circuit.of(2, [h(0), h(1)])


def ansaetze():
    qaoa = qaoa_ansatz(SparsePauliOp(["IZZ", "ZZI", "ZII"], [1, 2, 0.5]), reps=2)
    yield from (efficient_su2(3), real_amplitudes(4, reps=2), z_feature_map(3), qaoa)
    yield n_local(3, ["ry", "rz"], "cz", entanglement="circular")
    yield zz_feature_map(3).assign_parameters([0.3, -1.2, 2.0])
    yield zz_feature_map(3, data_map_func=lambda x: x[0] if len(x) == 1 else x[0] - x[1] / 2)


@pytest.mark.parametrize("index", range(7))
def test_ansaetze_of_qiskit_s_library_have_their_state(index):
    circuit = list(ansaetze())[index]
    values_s = np.random.default_rng(index).normal(size=circuit.num_parameters)
    expected = qiskit_state(circuit, dict(zip(circuit.parameters, values_s, strict=True)))
    assert distance(dense_state(from_qiskit(circuit), values_s), expected) < 1e-12


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("name", ["EfficientSU2", "RealAmplitudes", "TwoLocal", "ZFeatureMap", "QAOAAnsatz"])
def test_ansaetze_of_qiskit_s_old_classes_have_their_state(name):
    import qiskit.circuit.library as library

    arguments = {"TwoLocal": (3, "ry", "cz"), "QAOAAnsatz": (SparsePauliOp(["ZZI", "IZZ"]),)}
    circuit = getattr(library, name)(*arguments.get(name, (3,))).decompose(reps=2 * (name == "QAOAAnsatz"))
    values_s = np.random.default_rng(1).normal(size=circuit.num_parameters)
    expected = qiskit_state(circuit, dict(zip(circuit.parameters, values_s, strict=True)))
    assert distance(dense_state(from_qiskit(circuit), values_s), expected) < 1e-12


QASM2 = """// a comment
OPENQASM 2.0;
include "qelib1.inc";
gate mine(a) p, q { h p; cu1(a / 2) p, q; }
qreg q[2];
creg c[2];
mine(pi / 3) q[1], q[0];
u2(0.1, 0.2) q[0];
u3(0.1, 0.2, 0.3) q[1];
rzz(0.7) q[0], q[1];
sx q[0];
measure q -> c;
"""
QASM3 = """OPENQASM 3.0;
include "stdgates.inc";
input float[64] theta;
input angle phi;
qubit[2] q;
bit[2] c;
h q[0];
rx(2 * theta + pi / 2) q[0];
ctrl @ rz(phi) q[0], q[1];
inv @ s q[1];
gphase(pi / 3);
c = measure q;
"""


def test_a_program_in_openqasm_2_has_its_state():
    from qiskit import qasm2

    theirs = qasm2.loads(QASM2, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
    expected = qiskit_state(theirs.remove_final_measurements(inplace=False))
    assert distance(dense_state(from_qasm(QASM2), []), expected) < 1e-12


def test_a_program_in_openqasm_3_has_its_state_and_its_inputs(tmp_path):
    pytest.importorskip("qiskit_qasm3_import")
    expected = QuantumCircuit(2, global_phase=math.pi / 3)
    expected.h(0)
    expected.rx(2 * 0.3 + math.pi / 2, 0)
    expected.crz(0.8, 0, 1)
    expected.sdg(1)
    (tmp_path / "program.qasm").write_text(QASM3)
    circuit = from_qasm(tmp_path / "program.qasm", inputs="phi")
    assert (circuit.n_inputs, circuit.n_weights) == (1, 1)
    assert distance(dense_state(circuit, [0.8, 0.3]), qiskit_state(expected)) < 1e-12
    with pytest.raises(ValueError, match=r"^from_qasm: got OpenQASM 3 that cannot be read: .*frob.*$"):
        from_qasm("OPENQASM 3.0; qubit q; frob q;")


def test_openqasm_3_without_its_package_is_one_line(monkeypatch):
    imported = builtins.__import__

    def without(name, *rest):
        if name == "qiskit_qasm3_import":
            raise ImportError(name)
        return imported(name, *rest)

    from qiskit.utils import optionals

    monkeypatch.delitem(sys.modules, "qiskit_qasm3_import", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(optionals.HAS_QASM3_IMPORT, "_bool", False)
    with pytest.raises(ImportError, match=r"^from_qasm: OpenQASM 3 needs qiskit-qasm3-import \(pip install .*\)$"):
        from_qasm(QASM3)


def test_the_phase_of_a_program_is_kept():
    (w,) = weights(1)
    circuit = Circuit.of(1, [phase(w), h(0), phase(w + 0.5)])
    assert from_qiskit(circuit.to_qiskit()) == Circuit.of(1, [h(0), phase(2 * w + 0.5)])
    state = Operator(circuit.to_qiskit([0.3])).data[:, 0]
    assert distance(dense_state(circuit, [0.3]), state) < 1e-15


def gates(*steps, n_qubits=2):
    """Return a QuantumCircuit of method names with their arguments."""
    circuit = QuantumCircuit(n_qubits, n_qubits)
    for name, *arguments in steps:
        getattr(circuit, name)(*arguments)
    return circuit


def conditional():
    circuit = gates(("measure", 0, 0))
    with circuit.if_test((0, 1)):
        circuit.x(1)
    return circuit


A, B = Parameter("a"), Parameter("b")
AFFINE = "allowed: an angle that is affine in the parameters, with real coefficients"
REFUSED = {
    "from_qiskit: got str; allowed: a QuantumCircuit": lambda: from_qiskit("circuit"),
    "from_qiskit: got reset on qubits [1]; allowed: gates with": lambda: from_qiskit(gates(("reset", 1))),
    "from_qiskit: got initialize > reset on qubits [0]; allowed:": lambda: from_qiskit(
        gates(("initialize", [0, 1], [0]))
    ),
    "from_qiskit: got h on qubit 0 after measure; allowed: measure at": lambda: from_qiskit(
        gates(("measure", 0, 0), ("h", 0))
    ),
    "from_qiskit: got if_else on qubits [1]; allowed: gates with": lambda: from_qiskit(conditional()),
    f"from_qiskit: rx on qubits [0] got a*b; {AFFINE}": lambda: from_qiskit(gates(("rx", A * B, 0))),
    f"from_qiskit: rx on qubits [0] got sin(a); {AFFINE}": lambda: from_qiskit(gates(("rx", A.sin(), 0))),
    f"from_qiskit: rx on qubits [0] got sign(a); {AFFINE}": lambda: from_qiskit(gates(("rx", A.sign(), 0))),
    "from_qiskit: inputs got c; allowed: the circuit's own parameters": lambda: from_qiskit(
        gates(("rx", A, 0)), inputs="c"
    ),
    "from_qiskit: weights got a; allowed: the circuit's own parameters": lambda: from_qiskit(
        gates(("rx", A, 0)), weights=Parameter("a")
    ),
    "from_qiskit: inputs got 1; allowed: a Parameter, a ParameterVector,": lambda: from_qiskit(gates(), inputs=1),
    "from_qiskit: got parameter a twice; allowed: once": lambda: from_qiskit(gates(("rx", A, 0)), A, [A]),
    "from_qiskit: got parameter b as neither; allowed: each": lambda: from_qiskit(gates(("rx", A + B, 0)), A, []),
    "from_qasm: got 'h q;'; allowed: a program that begins with": lambda: from_qasm("h q;"),
    "from_qasm: got OpenQASM 2 that cannot be read: <input>": lambda: from_qasm("OPENQASM 2.0; qreg q[1]; frob q[0];"),
    "from_qasm: got OpenQASM 2 that cannot be read: <input>:1,22: unable": lambda: from_qasm(
        'OPENQASM 2.0; include "/etc/hostname";'
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_imported_is_refused_in_one_line(message):
    with pytest.raises(ValueError) as refusal:
        REFUSED[message]()
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
