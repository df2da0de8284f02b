"""Simulate the same circuits by Qiskit, Aer, PennyLane and qulacs, as their users would.

Each maker takes a CircuitSpec and angles (batch, depth, n_qubits, rotations) and returns a call that simulates them and
returns (batch, 2**n_qubits) complex amplitudes, qubit 0 least significant. The maker prepares all that can be prepared
once per circuit (building, transpiling), outside of the time that is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.circuits.spec import CircuitSpec

States = NDArray[np.complex128]
Call = Callable[[], States]


def qiskit_statevector(spec: CircuitSpec, angles_bdnr: Tensor) -> Call:
    """Simulate by `qiskit.quantum_info.Statevector`, one circuit after the other; circuits are built beforehand."""
    from qiskit.quantum_info import Statevector

    circuits = [spec.to_qiskit(angles) for angles in angles_bdnr]
    return lambda: np.stack([Statevector(circuit).data for circuit in circuits])


def aer_runtime_binding(spec: CircuitSpec, angles_bdnr: Tensor, method: str = "statevector") -> Call:
    """Simulate by Qiskit Aer: one parametrised circuit and lists of values, bound at run time."""
    import_aer()
    from qiskit_aer import AerSimulator

    circuit = spec.to_qiskit()
    circuit.save_statevector()
    simulator = AerSimulator(method=method, runtime_parameter_bind_enable=True)
    binds = [parameter_values(circuit, angles_bdnr)]

    def call() -> States:
        result = simulator.run([circuit], parameter_binds=binds).result()
        return np.stack([np.asarray(result.get_statevector(number)) for number in range(len(angles_bdnr))])

    return call


def aer_matrix_product_state(spec: CircuitSpec, angles_bdnr: Tensor) -> Callable[[], NDArray[np.float64]]:
    """Simulate by the matrix-product state of Aer: every <Z_i>, (batch, n_qubits), values bound at run time."""
    import_aer()
    from qiskit.quantum_info import Pauli
    from qiskit_aer import AerSimulator

    circuit, n = spec.to_qiskit(), spec.n_qubits
    for qubit in range(n):
        circuit.save_expectation_value(Pauli("Z"), [qubit], label=f"z{qubit}")
    simulator = AerSimulator(
        method="matrix_product_state",
        runtime_parameter_bind_enable=True,
        mps_lapack=True,  # its own decomposition is wrong by 1e-11 and more, at any truncation threshold
    )
    binds = [parameter_values(circuit, angles_bdnr)]

    def call() -> NDArray[np.float64]:
        result = simulator.run([circuit], parameter_binds=binds).result()
        data_by_circuit = [result.data(number) for number in range(len(angles_bdnr))]
        return np.array([[data[f"z{qubit}"] for qubit in range(n)] for data in data_by_circuit])

    return call


def parameter_values(circuit: Any, angles_bdnr: Tensor) -> dict[Any, list[float]]:
    """Return each parameter of a `CircuitSpec.to_qiskit()` with its values along the batch."""
    parameters = {parameter.name: parameter for parameter in circuit.parameters}
    angles = angles_bdnr.numpy()
    _, depth, n_qubits, rotations = angles.shape
    return {
        parameters[f"{chr(ord('a') + index)}[{level},{qubit}]"]: angles[:, level, qubit, index].tolist()
        for level in range(depth)
        for qubit in range(n_qubits)
        for index in range(rotations)
    }


def pennylane_batched(spec: CircuitSpec, angles_bdnr: Tensor) -> Call:
    """Simulate by the default.qubit of PennyLane on torch tensors, the batch broadcast through every gate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pennylane as qml

    gates = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ}
    n = spec.n_qubits

    def circuit(angles: Tensor) -> Any:
        for layer in spec.layers():
            for targets in layer.targets:
                # PennyLane's wire 0 is the most significant bit.
                wires = [n - 1 - qubit for qubit in targets]
                if layer.angle is not None:
                    level, index = layer.angle
                    gates[layer.gate](angles[:, level, targets[0], index], wires)
                elif layer.gate == "h":
                    qml.Hadamard(wires)
                else:
                    qml.CNOT(wires)
        return qml.state()

    device: Any = qml.device("default.qubit", wires=n)
    node: Any = qml.QNode(circuit, device, interface="torch", diff_method=None)
    return lambda: np.asarray(node(angles_bdnr)).reshape(len(angles_bdnr), -1)


def qulacs_loop(spec: CircuitSpec, angles_bdnr: Tensor) -> Call:
    """Simulate by qulacs: one parametric circuit whose angles are set for each circuit in turn."""
    import qulacs

    circuit = qulacs.ParametricQuantumCircuit(spec.n_qubits)
    places: list[tuple[int, int, int]] = []
    for layer in spec.layers():
        for targets in layer.targets:
            if layer.angle is not None:
                level, index = layer.angle
                getattr(circuit, f"add_parametric_{layer.gate.upper()}_gate")(targets[0], 0.0)
                places.append((level, targets[0], index))
            elif layer.gate == "h":
                circuit.add_H_gate(targets[0])
            else:
                circuit.add_CNOT_gate(*targets)
    order = tuple(np.array(places).T)
    # qulacs rotates by +angle in exp(+i angle P / 2); Qiskit by the opposite sign.
    values = -angles_bdnr.numpy()
    state = qulacs.QuantumState(spec.n_qubits)

    def call() -> States:
        states = np.empty((len(values), 2**spec.n_qubits), dtype=np.complex128)
        for number, angles in enumerate(values):
            for place, value in enumerate(angles[order]):
                circuit.set_parameter(place, value)
            state.set_zero_state()
            circuit.update_quantum_state(state)
            states[number] = state.get_vector()
        return states

    return call
