"""Simulate by PennyLane's lightning.qubit: tapes made beforehand, handed to the device; gradients by its adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, angle_columns
from qsgd_ray.bench.circuits.peers.pennylane_qubit import _every_z, _operations


class Lightning(Engine):
    """The device itself: what a QNode adds to a call is not counted."""

    name = "PennyLane lightning"
    needs = "pennylane_lightning"
    most_circuits = 64

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call that executes a tape a circuit."""
        import pennylane as qml

        device, tapes = _device(circuits), _tapes(circuits, [qml.state()])
        return lambda: np.stack(device.execute(tapes))

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call that executes a tape a circuit."""
        device, tapes = _device(circuits), _tapes(circuits, _every_z(circuits.spec.n_qubits))
        return lambda: _rows(device.execute(tapes), circuits)

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        """Return a call for the device's vector-Jacobian products."""
        device, tapes = _device(circuits), _tapes(circuits, _every_z(circuits.spec.n_qubits))
        cotangents = [tuple(row) if len(row) > 1 else row[0] for row in circuits.cotangent_bn]
        columns = angle_columns(circuits.spec)

        def call() -> Any:
            z, products = device.execute_and_compute_vjp(tapes, cotangents)
            gradient = np.empty_like(circuits.angles_bdnr)
            gradient[:, *columns] = np.array(products)
            return _rows(z, circuits), gradient

        return call


def _device(circuits: Circuits) -> Any:
    import pennylane as qml

    precision = np.complex128 if circuits.double else np.complex64
    return qml.device("lightning.qubit", wires=circuits.spec.n_qubits, c_dtype=precision)


def _tapes(circuits: Circuits, measurements: list[Any]) -> list[Any]:
    from pennylane.tape import QuantumScript

    trainable = list(range(circuits.angles_bdnr[0].size))
    return [
        QuantumScript(
            _operations(circuits, lambda index, angles=angles: float(angles[index])),  # type: ignore[misc]
            measurements,
            trainable_params=trainable,
        )
        for angles in circuits.angles_bdnr
    ]


def _rows(expectations: Any, circuits: Circuits) -> Any:
    # In the precision in which they were computed; the device hands over float64.
    return np.array(expectations, circuits.angles_bdnr.dtype).reshape(len(expectations), -1)
