"""Simulate by qujax: its function from parameters to a state, under jit and vmap. Its angles are in units of pi."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qsgd_ray.bench.circuits.engine import Circuits, angle_columns, gates
from qsgd_ray.bench.circuits.peers._jax_calls import JaxEngine, import_jax, z_of_states

_NAMES = {"h": "H", "cx": "CX", "rx": "Rx", "ry": "Ry", "rz": "Rz"}


class Qujax(JaxEngine):
    """A state tensor; <Z> is read from it as by the hand-written peers."""

    name = "qujax"
    needs = "qujax"

    def states_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped state."""
        jax = import_jax()
        import qujax

        placed = gates(circuits.spec, first_wire_most_significant=True)
        rotations = [gate for gate in placed if gate.angle is not None]
        state = qujax.get_params_to_statetensor_func(
            [_NAMES[gate.name] for gate in placed],
            [list(gate.wires) for gate in placed],
            [[] if gate.angle is None else [rotations.index(gate)] for gate in placed],
            circuits.spec.n_qubits,
        )
        columns = tuple(map(np.array, angle_columns(circuits.spec)))
        return jax.vmap(lambda angles: state(angles[columns] / np.pi).reshape(-1))

    def z_of(self, circuits: Circuits) -> Callable[[Any], Any] | None:
        """Return the vmapped state, read."""
        states = self.states_of(circuits)
        assert states is not None
        return lambda angles: z_of_states(states(angles), circuits.spec.n_qubits)
