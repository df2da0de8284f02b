"""Simulate long chains by quimb's matrix-product state: every <Z_i>, one circuit after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, gates


class Quimb(Engine):
    """CircuitMPS, and its expectations in canonical form."""

    name = "quimb mps"
    needs = "quimb"
    most_circuits = 1
    chain_qubits = range(20, 101)  # longer ones take minutes

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call that applies the gates and contracts."""
        import quimb.tensor as tensors

        n, placed = circuits.spec.n_qubits, gates(circuits.spec)
        pauli_z = {(qubit,): np.diag([1.0, -1.0]) for qubit in range(n)}

        def expectations(angles: Any) -> list[float]:
            circuit = tensors.CircuitMPS(n, cutoff=1e-13, dtype="complex128" if circuits.double else "complex64")
            for gate in placed:
                values = () if gate.angle is None else (angles[gate.angle],)
                circuit.apply_gate(gate.name.upper(), *values, *gate.wires)
            found = circuit.psi.compute_local_expectation(pauli_z, method="canonical", return_all=True)
            return [complex(found[(qubit,)]).real for qubit in range(n)]

        return lambda: np.array([expectations(angles) for angles in circuits.angles_bdnr])
