"""Simulate by pyqtorch: batched torch states, gradients by autograd.

Its adjoint mode is not measured: of batches its gradients differ (pyqtorch 1.7.8, 2026-12-01).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, gates


class PyQTorch(Engine):
    """A QuantumCircuit with a parameter a gate; <Z> by its observables."""

    name = "pyqtorch"
    needs = "pyqtorch"
    tape = True

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call of `run`."""
        run, angles = _run(circuits), circuits.torch_angles()
        return lambda: run(angles).movedim(-1, 0).reshape(len(angles), -1)

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call of the observables of the state."""
        z, angles = _expectations(circuits), circuits.torch_angles()
        return lambda: z(angles)

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        """Return a call of the same and of autograd."""
        expectations, cotangent = _expectations(circuits), torch.tensor(circuits.cotangent_bn)
        angles = circuits.torch_angles().requires_grad_()

        def call() -> Any:
            z = expectations(angles)
            (gradient,) = torch.autograd.grad(z, angles, cotangent)
            return z.detach(), gradient

        return call


def _run(circuits: Circuits) -> Callable[[Tensor], Tensor]:
    """Return the function from angles (b, d, n, r) to states, an axis a qubit and the batch last."""
    import pyqtorch

    placed, operations = gates(circuits.spec, first_wire_most_significant=True), []
    for gate in placed:
        if gate.angle is not None:
            operations.append(getattr(pyqtorch, gate.name.upper())(gate.wires[0], str(gate.angle)))
        else:
            operations.append(pyqtorch.H(*gate.wires) if gate.name == "h" else pyqtorch.CNOT(*gate.wires))
    circuit = _moved(pyqtorch.QuantumCircuit(circuits.spec.n_qubits, operations), circuits)
    indices = [gate.angle for gate in placed if gate.angle is not None]

    def run(angles: Tensor) -> Tensor:
        values = {str(index): angles[:, index[0], index[1], index[2]] for index in indices}
        state: Tensor = pyqtorch.run(circuit, values=values)
        return state

    return run


def _expectations(circuits: Circuits) -> Callable[[Tensor], Tensor]:
    import pyqtorch

    run, n = _run(circuits), circuits.spec.n_qubits
    observables = [_moved(pyqtorch.Observable([pyqtorch.Z(n - 1 - qubit)]), circuits) for qubit in range(n)]

    def expectations(angles: Tensor) -> Tensor:
        state = run(angles)  # once for all: its own `expectation` runs the circuit for each observable
        return torch.stack([observable.expectation(state) for observable in observables], 1)

    return expectations


def _moved(module: Any, circuits: Circuits) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: complex modules are a new feature
        return module.to(torch.complex128 if circuits.double else torch.complex64)
