"""Simulate by Qiskit: Aer's statevector and matrix-product state, values bound at run time; and its Statevector.

They have no gradients but the parameter-shift rule, which takes two circuits an angle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine
from qsgd_ray.circuits.aer.executor import import_aer
from qsgd_ray.circuits.spec import parameter_columns


class QiskitStatevector(Engine):
    """`qiskit.quantum_info.Statevector`, one circuit after the other; circuits are built beforehand."""

    name = "Qiskit Statevector"
    needs = "qiskit"
    most_circuits = 64
    most_amplitudes = 2**18

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call that evolves each circuit."""
        from qiskit.quantum_info import Statevector

        bound = [circuits.spec.to_qiskit(angles) for angles in circuits.angles_bdnr]
        return lambda: np.stack([Statevector(circuit).data for circuit in bound])


class _AerEngine(Engine):
    needs = "qiskit_aer"
    distribution = "qiskit-aer"

    def bring(self) -> None:
        """Import Aer as this package does."""
        import_aer()


class Aer(_AerEngine):
    """Aer's statevector."""

    name = "Aer"
    most_circuits = 1024

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call that saves the statevectors."""

        def saving(circuit: Any) -> None:
            circuit.save_statevector()

        return _run(circuits, saving, lambda data: np.asarray(data["statevector"]), "statevector")

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call that saves every <Z_i>."""
        return _run_z(circuits, "statevector")


class AerMatrixProductState(_AerEngine):
    """Aer's matrix-product state: every <Z_i> of chains."""

    name = "Aer mps"
    most_circuits = 4
    chain_qubits = range(20, 2000)

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call that saves every <Z_i>."""
        # Its own decomposition is wrong by 1e-11 and more, at any truncation threshold; LAPACK's is not.
        return _run_z(circuits, "matrix_product_state", mps_lapack=True) if circuits.double else None


def _run_z(circuits: Circuits, method: str, **options: Any) -> Call:
    from qiskit.quantum_info import Pauli

    n = circuits.spec.n_qubits

    def saving(circuit: Any) -> None:
        for qubit in range(n):
            circuit.save_expectation_value(Pauli("Z"), [qubit], label=f"z{qubit}")

    def read(data: Any) -> Any:
        return np.array([data[f"z{qubit}"] for qubit in range(n)], circuits.angles_bdnr.dtype)

    return _run(circuits, saving, read, method, **options)


def _run(
    circuits: Circuits, saving: Callable[[Any], None], read: Callable[[Any], Any], method: str, **options: Any
) -> Call:
    """Return a call that runs one parametrised circuit with lists of values, and reads each circuit's data."""
    from qiskit_aer import AerSimulator

    circuit = circuits.spec.to_qiskit()
    flat = circuits.angles_bdnr.reshape(len(circuits.angles_bdnr), -1)
    binds = [{parameter: flat[:, column].tolist() for parameter, column in parameter_columns(circuits.spec, circuit)}]
    saving(circuit)
    simulator = AerSimulator(
        method=method,
        precision="double" if circuits.double else "single",
        max_parallel_threads=torch.get_num_threads(),
        runtime_parameter_bind_enable=True,
        **options,
    )

    def call() -> Any:
        result = simulator.run([circuit], parameter_binds=binds).result()
        return np.array([read(result.data(number)) for number in range(len(flat))])

    return call
