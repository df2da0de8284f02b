"""Simulate by PennyLane's default.qubit: under torch, the batch broadcast; under JAX, by jit and vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, gates
from qsgd_ray.bench.circuits.peers._jax_calls import JaxEngine, import_jax


def _operations(circuits: Circuits, angle_of: Callable[[tuple[int, int, int]], Any]) -> list[Any]:
    """Return the circuit's gates as operations of PennyLane; inside of a QNode they are its circuit.

    Args:
        circuits: the circuit.
        angle_of: the angle, or a batch of them, at an index (layer, qubit, rotation).
    """
    import pennylane as qml

    made = []
    for gate in gates(circuits.spec, first_wire_most_significant=True):
        if gate.angle is not None:
            made.append(getattr(qml, gate.name.upper())(angle_of(gate.angle), gate.wires))
        else:
            made.append(qml.Hadamard(gate.wires) if gate.name == "h" else qml.CNOT(gate.wires))
    return made


def _every_z(n_qubits: int) -> list[Any]:
    """Return the measurements <Z_0> ... <Z_{n-1}>."""
    import pennylane as qml

    return [qml.expval(qml.PauliZ(n_qubits - 1 - qubit)) for qubit in range(n_qubits)]


def _node(circuits: Circuits, interface: str, states: bool, batched: bool) -> Callable[[Any], Any]:
    """Return a QNode of angles (b, d, n, r) if batched, else (d, n, r)."""
    import pennylane as qml

    n = circuits.spec.n_qubits

    def circuit(angles: Any) -> Any:
        _operations(circuits, lambda index: angles[:, index[0], index[1], index[2]] if batched else angles[index])
        return qml.state() if states else _every_z(n)

    node: Callable[[Any], Any] = qml.QNode(
        circuit, qml.device("default.qubit", wires=n), interface=interface, diff_method="backprop"
    )
    return node


class PennyLaneTorch(Engine):
    """Torch tensors, the batch broadcast through every gate."""

    name = "PennyLane torch"
    needs = "pennylane"
    tape = True

    def states(self, circuits: Circuits) -> Call | None:
        """Return a call of the node that ends in the state."""
        node, angles = _node(circuits, "torch", states=True, batched=True), circuits.torch_angles()
        return lambda: node(angles).reshape(len(angles), -1)

    def z(self, circuits: Circuits) -> Call | None:
        """Return a call of the node that ends in expectations."""
        node, angles = _node(circuits, "torch", states=False, batched=True), circuits.torch_angles()
        return lambda: _stacked(node(angles))

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        """Return a call of the same node and of autograd."""
        node, cotangent = _node(circuits, "torch", states=False, batched=True), torch.tensor(circuits.cotangent_bn)
        angles = circuits.torch_angles().requires_grad_()

        def call() -> Any:
            z = _stacked(node(angles))
            (gradient,) = torch.autograd.grad(z, angles, cotangent.to(z.dtype))
            return z.detach(), gradient

        return call


def _stacked(expectations: Any) -> torch.Tensor:
    return torch.stack([x.reshape(-1) for x in expectations], 1)


class PennyLaneJax(JaxEngine):
    """A node of one circuit under vmap and jit."""

    name = "PennyLane jax"
    needs = "pennylane"

    def missing(self) -> bool:
        """Return True where PennyLane or JAX is not installed."""
        return super().missing() or JaxEngine().missing()

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped node that ends in the state."""
        return import_jax().vmap(_node(circuits, "jax", states=True, batched=False))

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped node that ends in expectations."""
        jax, node = import_jax(), _node(circuits, "jax", states=False, batched=False)
        return jax.vmap(lambda angles: jax.numpy.stack(node(angles)))
