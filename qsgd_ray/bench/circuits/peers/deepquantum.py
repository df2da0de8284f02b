"""Simulate by DeepQuantum: angles encoded as a batch, gradients by autograd."""

from __future__ import annotations

from typing import Any

import torch

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, angle_columns, gates


class DeepQuantum(Engine):
    """A QubitCircuit that gets its angles as data."""

    name = "DeepQuantum"
    needs = "deepquantum"
    tape = True

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call of the circuit."""
        circuit, angles = _circuit(circuits), circuits.torch_angles()
        columns = angle_columns(circuits.spec)
        return lambda: circuit(angles[:, *columns]).reshape(len(angles), -1)

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call of the circuit and its observables."""
        circuit, angles = _circuit(circuits), circuits.torch_angles()
        columns = angle_columns(circuits.spec)

        def call() -> Any:
            circuit(angles[:, *columns])
            return circuit.expectation().reshape(len(angles), -1)

        return call

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        """Return a call of the same and of autograd."""
        circuit, cotangent = _circuit(circuits), torch.tensor(circuits.cotangent_bn)
        angles, columns = circuits.torch_angles().requires_grad_(), angle_columns(circuits.spec)

        def call() -> Any:
            circuit(angles[:, *columns])
            z = circuit.expectation().reshape(len(angles), -1)
            (gradient,) = torch.autograd.grad(z, angles, cotangent)
            return z.detach(), gradient

        return call


def _circuit(circuits: Circuits) -> Any:
    import deepquantum

    n = circuits.spec.n_qubits
    circuit = deepquantum.QubitCircuit(n)
    # Its own H is rounded to float32, in float64 circuits too (4.5.0).
    hadamard = 0.5**0.5 * torch.tensor([[1, 1], [1, -1]], dtype=torch.complex128)
    for gate in gates(circuits.spec, first_wire_most_significant=True):
        if gate.angle is not None:
            getattr(circuit, gate.name)(gate.wires[0], encode=True)
        elif gate.name == "h":
            circuit.any(hadamard, list(gate.wires))
        else:
            circuit.cnot(*gate.wires)
    for qubit in range(n):
        circuit.observable(n - 1 - qubit)
    return circuit.to(torch.double if circuits.double else torch.float)
