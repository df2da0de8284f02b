"""Random circuits of all gates, as `Circuit`s and as the same gates of Qiskit."""

import math

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import Statevector

from qsgd_ray.circuits import gates as functions
from qsgd_ray.circuits.angles import inputs, weights
from qsgd_ray.circuits.circuit import Circuit

FIXED = dict.fromkeys(["h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg", "cx", "cy", "cz", "swap"], 0)
TURNING = dict.fromkeys(["rx", "ry", "rz", "rxx", "ryy", "rzz", "p", "crx", "cry", "crz", "cp"], 1) | {"u": 3}
ANGLES = FIXED | TURNING  # number of angles of each gate that Qiskit has too
# Number of qubits of each gate; 2 of the others.
QUBITS = dict.fromkeys(["h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg", "rx", "ry", "rz", "p", "u"], 1)
N_INPUTS, N_WEIGHTS = 3, 4


def random_pair(seed, n_qubits, n_gates, slots=True):
    """Return the same random gates as a `Circuit` and as a QuantumCircuit with parameters x[i] and w[i].

    Args:
        seed: of the draw.
        n_qubits: number of qubits.
        n_gates: number of gates.
        slots: False: every angle is a number.
    """
    draw = np.random.default_rng(seed)
    ours = [*inputs(N_INPUTS), *weights(N_WEIGHTS)]
    theirs = [*ParameterVector("x", N_INPUTS), *ParameterVector("w", N_WEIGHTS)]

    def angle():
        offset, factors = draw.normal() * 3, draw.uniform(0.3, 3, size=2)
        pair = draw.choice(len(ours), size=2, replace=False)
        if not slots or draw.random() < 0.2:
            return offset, offset
        if draw.random() < 0.3:
            return ours[pair[0]], theirs[pair[0]]
        return tuple(factors[0] * s[pair[0]] - s[pair[1]] / factors[1] + offset for s in (ours, theirs))

    names = [name for name in ANGLES if n_qubits > 1 or name in QUBITS]
    gates, circuit = [], QuantumCircuit(n_qubits)
    for name in draw.choice(names, size=n_gates):
        qubits = draw.choice(n_qubits, size=QUBITS.get(name, 2), replace=False).tolist()
        angles = [angle() for _ in range(ANGLES[name])]
        gates.append(getattr(functions, name)(*(a for a, _ in angles), *qubits))
        getattr(circuit, name)(*(b for _, b in angles), *qubits)
    return Circuit.of(n_qubits, gates, N_INPUTS, N_WEIGHTS), circuit


def random_circuit(seed, n_qubits, n_gates, slots=True):
    """Return a random circuit of all gates, Pauli strings of any length and global phases among them.

    Args:
        seed: of the draw.
        n_qubits: number of qubits.
        n_gates: number of gates that Qiskit has too; half as many Pauli strings come between them.
        slots: False: every angle is a number.
    """
    draw = np.random.default_rng((seed, 1))
    circuit, _ = random_pair(seed, n_qubits, n_gates, slots)
    gates = list(circuit.gates)
    angles = [gate.angle for gate in circuit.gates if gate.angle is not None] or [0.5]
    for _ in range(n_gates // 2):
        qubits = draw.permutation(n_qubits)[: draw.integers(n_qubits + 1)].tolist()
        letters = "".join(draw.choice(list("IXYZ"), size=len(qubits)))
        rotation = functions.pauli_rotation(letters, angles[draw.integers(len(angles))], qubits)
        gates.insert(draw.integers(len(gates) + 1), *rotation)
    return Circuit(n_qubits, tuple(gates), N_INPUTS, N_WEIGHTS)


def random_values(seed, circuit):
    """Return normal numbers for the slots of a circuit, float64 (s,)."""
    return np.random.default_rng((seed, 2)).normal(size=circuit.n_slots) * 2


def qiskit_state(circuit, numbers=None):
    """Return the amplitudes of a QuantumCircuit.

    Args:
        circuit: of Qiskit.
        numbers: by parameter; None: it has none.
    """
    bound = circuit.assign_parameters(numbers) if numbers else circuit
    return Statevector(bound).data


def reordered(seed, gates):
    """Return the gates in a random order in which those that share a qubit keep theirs."""
    draw = np.random.default_rng((seed, 3))
    place = draw.random(len(gates))
    waiting, last, order = list(range(len(gates))), {}, []
    before = [set() for _ in gates]
    for index, gate in enumerate(gates):
        for qubit in gate.qubits:
            if qubit in last:
                before[index].add(last[qubit])
            last[qubit] = index
    while waiting:
        ready = [index for index in waiting if not before[index] - set(order)]
        order.append(min(ready, key=lambda index: place[index]))
        waiting.remove(order[-1])
    return tuple(gates[index] for index in order)


def distance(state, other):
    """Return the largest difference of two states' amplitudes; infinite where their lengths differ."""
    return np.abs(state - other).max() if len(state) == len(other) else math.inf
