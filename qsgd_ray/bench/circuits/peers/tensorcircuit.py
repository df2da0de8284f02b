"""Simulate by TensorCircuit-NG on its JAX backend: contraction, jit and vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qsgd_ray.bench.circuits.engine import Circuits, gates
from qsgd_ray.bench.circuits.peers._jax_calls import JaxEngine, import_jax


class TensorCircuit(JaxEngine):
    """A Circuit whose state and expectations are contracted."""

    name = "TensorCircuit"
    needs = "tensorcircuit"
    distribution = "tensorcircuit-ng"

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped state."""
        circuit = _circuit(circuits)
        return import_jax().vmap(lambda angles: circuit(angles).state())

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped expectations."""
        jax, circuit, n = import_jax(), _circuit(circuits), circuits.spec.n_qubits

        def expectations(angles: Any) -> Any:
            state = circuit(angles)
            return jax.numpy.stack([state.expectation_ps(z=[n - 1 - qubit]).real for qubit in range(n)])

        return jax.vmap(expectations)


def _circuit(circuits: Circuits) -> Callable[[Any], Any]:
    """Return the function from angles (d, n, r) to a Circuit; sets the backend, and the precision of what is traced."""
    import_jax()
    import tensorcircuit

    tensorcircuit.set_backend("jax")
    tensorcircuit.set_dtype("complex128" if circuits.double else "complex64")
    placed = gates(circuits.spec, first_wire_most_significant=True)

    def circuit(angles: Any) -> Any:
        found = tensorcircuit.Circuit(circuits.spec.n_qubits)
        for gate in placed:
            if gate.angle is None:
                getattr(found, gate.name)(*gate.wires)
            else:
                getattr(found, gate.name)(*gate.wires, theta=angles[gate.angle])
        return found

    return circuit
