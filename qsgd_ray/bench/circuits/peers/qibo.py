"""Simulate by Qibo on qibojit's numba kernels: one circuit whose angles are set for each circuit in turn."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, angle_columns, gates


class Qibo(Engine):
    """Its states; <Z> is read from them by numpy, and gradients it leaves to the parameter-shift rule."""

    name = "Qibo qibojit"
    needs = "qibojit"
    most_circuits = 64

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call that simulates one circuit after the other."""
        import qibo

        backend: Any = qibo.backends.construct_backend("qibojit", platform="numba")
        backend.set_dtype("complex128" if circuits.double else "complex64")
        circuit = qibo.Circuit(circuits.spec.n_qubits)
        for gate in gates(circuits.spec, first_wire_most_significant=True):
            if gate.angle is not None:
                circuit.add(getattr(qibo.gates, gate.name.upper())(gate.wires[0], theta=0.0))
            else:
                circuit.add(qibo.gates.H(*gate.wires) if gate.name == "h" else qibo.gates.CNOT(*gate.wires))
        values = circuits.angles_bdnr[:, *angle_columns(circuits.spec)].tolist()

        def call() -> Any:
            states = []
            for angles in values:
                circuit.set_parameters(angles)
                states.append(backend.execute_circuit(circuit).state())
            return np.stack(states)

        return call

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call that reads the states."""
        states = self.states(circuits)
        assert states is not None
        n = circuits.spec.n_qubits
        signs = (1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)).astype(circuits.angles_bdnr.dtype)
        return lambda: (np.abs(states()) ** 2) @ signs
