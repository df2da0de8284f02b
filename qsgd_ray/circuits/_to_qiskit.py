"""Gates as a Qiskit QuantumCircuit, with their global phase."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qsgd_ray.circuits.angles import Angle
from qsgd_ray.circuits.gates import Gate, Gates

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

# The rotations that Qiskit has as methods, by their letters on ascending qubits.
_METHODS = {letters: f"r{letters.lower()}" for letters in ("X", "Y", "Z", "XX", "YY", "ZZ")} | {"ZX": "rzx"}


def split_phase(gates: Iterable[Gate]) -> tuple[Gates, Angle]:
    """Return the gates without the global phases among them, and the angle of exp(i angle), all phases together."""
    phases, others = list[Gate](), list[Gate]()
    for gate in gates:
        (phases if gate.pauli == "" else others).append(gate)
    angles = [gate.angle for gate in phases if gate.angle is not None]
    terms = itertools.chain.from_iterable(angle.terms for angle in angles)
    return tuple(others), Angle(sum(angle.offset for angle in angles), tuple(terms)) / -2


def quantum_circuit(
    n_qubits: int, gates: Sequence[Gate], phase: Angle, numbers: Mapping[str, Sequence[Any]]
) -> QuantumCircuit:
    """Return the same gates as a QuantumCircuit.

    Args:
        n_qubits: number of qubits.
        gates: on qubits below `n_qubits`, no global phases.
        phase: angle of the global phase exp(i phase).
        numbers: by kind, what stands for each slot: Qiskit's parameters, or floats.
    """
    from qiskit import QuantumCircuit
    from qiskit.circuit.library import PauliProductRotationGate
    from qiskit.quantum_info import Pauli

    def value(angle: Angle) -> Any:
        total: Any = None
        for kind, slot, factor in angle.terms:
            term = numbers[kind][slot] if factor == 1 else factor * numbers[kind][slot]
            total = term if total is None else total + term
        return angle.offset if total is None else total + angle.offset if angle.offset else total

    circuit = QuantumCircuit(n_qubits, global_phase=value(phase))
    for gate in gates:
        if gate.angle is None:
            getattr(circuit, gate.name)(*gate.qubits)
        elif gate.pauli in _METHODS:
            getattr(circuit, _METHODS[gate.pauli])(value(gate.angle), *gate.qubits)
        elif gate.pauli == "XZ":
            circuit.rzx(value(gate.angle), *reversed(gate.qubits))
        elif gate.pauli:  # Qiskit's labels begin with the last qubit
            circuit.append(PauliProductRotationGate(Pauli(gate.pauli[::-1]), value(gate.angle)), gate.qubits)
    return circuit
