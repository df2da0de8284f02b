"""Simulate by qulacs: one parametric circuit whose angles are set for each circuit in turn; float64 only.

It rotates by exp(+i angle P / 2), so that angles and gradients have the opposite sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, angle_columns, gates


class Qulacs(Engine):
    """Its state, its observables, and its gradient by backpropagation."""

    name = "qulacs"
    needs = "qulacs"
    most_circuits = 256
    most_amplitudes = 2**21

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call that simulates one circuit after the other."""
        spec, circuit, values = circuits.spec, _circuit(circuits), _values(circuits)

        def call() -> Any:
            states = np.empty((len(values), 2**spec.n_qubits), dtype=np.complex128)
            for number, state in enumerate(_simulated(circuit, values)):
                states[number] = state.get_vector()
            return states

        return call

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call that simulates one circuit after the other, and asks for each <Z_i>."""
        circuit, values = _circuit(circuits), _values(circuits)
        every_z = [_weighted_z({qubit: 1.0}, circuits) for qubit in range(circuits.spec.n_qubits)]
        return lambda: np.array(
            [[z.get_expectation_value(state) for z in every_z] for state in _simulated(circuit, values)]
        )

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        """Return a call that also asks for the gradient of each circuit's weighted sum."""
        circuit, values, columns = _circuit(circuits), _values(circuits), angle_columns(circuits.spec)
        every_z = [_weighted_z({qubit: 1.0}, circuits) for qubit in range(circuits.spec.n_qubits)]
        sums = [_weighted_z(dict(enumerate(row.tolist())), circuits) for row in circuits.cotangent_bn]

        def call() -> Any:
            z, gradient = [], np.empty(circuits.angles_bdnr.shape)
            for number, state in enumerate(_simulated(circuit, values)):
                z.append([observable.get_expectation_value(state) for observable in every_z])
                gradient[number][columns] = np.negative(circuit.backprop(sums[number]))
            return np.array(z), gradient

        return call


def _values(circuits: Circuits) -> Any:
    """Return the angles of qulacs, (b, gates)."""
    return -circuits.angles_bdnr[:, *angle_columns(circuits.spec)].astype(np.float64)


def _circuit(circuits: Circuits) -> Any:
    import qulacs

    circuit = qulacs.ParametricQuantumCircuit(circuits.spec.n_qubits)
    for gate in gates(circuits.spec):
        if gate.angle is not None:
            getattr(circuit, f"add_parametric_{gate.name.upper()}_gate")(gate.wires[0], 0.0)
        elif gate.name == "h":
            circuit.add_H_gate(gate.wires[0])
        else:
            circuit.add_CNOT_gate(*gate.wires)
    return circuit


def _simulated(circuit: Any, values: Any) -> Iterator[Any]:
    """Yield the state of each circuit, the same object each time."""
    import qulacs

    state = qulacs.QuantumState(circuit.get_qubit_count())
    for angles in values:
        for place, value in enumerate(angles):
            circuit.set_parameter(place, value)
        state.set_zero_state()
        circuit.update_quantum_state(state)
        yield state


def _weighted_z(weights: dict[int, float], circuits: Circuits) -> Any:
    import qulacs

    observable = qulacs.Observable(circuits.spec.n_qubits)
    for qubit, weight in weights.items():
        observable.add_operator(weight, f"Z {qubit}")
    return observable
