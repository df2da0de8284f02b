"""Tell a `CircuitSpec` by its gates, in whatever order those on different qubits come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, get_args

import numpy as np

from qsgd_ray.circuits.gates import Gate
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Entangle

_NAMES = {"X": "rx", "Y": "ry", "Z": "rz"}


def recognised(n_qubits: int, gates: Sequence[Gate]) -> tuple[CircuitSpec, np.ndarray] | None:
    """Return the spec with the same gates, and which rotation each of its angles is; None where there is no such spec.

    Two sequences of gates differ by exchanges of neighbours on different qubits alone exactly where each qubit sees the
    same gates in the same order (Cartier and Foata's traces). So one walk along a spec suffices.

    Args:
        n_qubits: number of qubits.
        gates: in the order in which they act.

    Returns:
        The spec, and the number of each of its angles among the rotations of `gates`, int64 of shape (d, n, r).
    """
    seen: list[list[tuple[str, Gate, int]]] = [[] for _ in range(n_qubits)]  # by qubit: name, gate, its number
    count = 0
    for gate in gates:
        name = gate.name if gate.angle is None else _NAMES.get(gate.pauli or "")
        if name is None:
            return None  # a global phase, or a rotation of several qubits
        for qubit in gate.qubits:
            seen[qubit].append((name, gate, count))
        count += gate.angle is not None
    for spec in _candidates(n_qubits, [name for name, _, _ in seen[0]], len(gates)):
        numbers_dnr = _numbers(spec, seen)
        if numbers_dnr is not None:
            return spec, numbers_dnr
    return None


def _candidates(n_qubits: int, names: list[str], n_gates: int) -> Iterator[CircuitSpec]:
    """Yield the specs of so many gates whose rotations are those on qubit 0; the shortest layer, where several fit."""
    turns: list[Any] = [name for name in names if name in _NAMES.values()]
    length = len(list(takewhile(lambda name: name in _NAMES.values(), names[1:])))
    if "cx" not in names:  # any period is a layer
        length = next((r for r in range(1, length) if length % r == 0 and turns[r:] == turns[:-r]), length)
    if not length or len(turns) % length:
        return
    for entangle in get_args(Entangle):
        spec = CircuitSpec(n_qubits, len(turns) // length, entangle, tuple(turns[:length]))
        if n_qubits + spec.depth * (n_qubits * length + len(spec.cnots())) == n_gates:
            yield spec


def _numbers(spec: CircuitSpec, seen: list[list[tuple[str, Gate, int]]]) -> np.ndarray | None:
    """Return the number of each angle's rotation; None where some qubit does not see the gates of the spec."""
    numbers_dnr = np.empty(spec.angles_shape(1)[1:], dtype=np.int64)
    ahead = [iter(gates) for gates in seen]
    for layer in spec.layers():
        for targets in layer.targets:
            for qubit in targets:
                name, gate, number = next(ahead[qubit], ("", None, 0))
                if gate is None or name != layer.gate or gate.qubits != targets:
                    return None
                if layer.angle is not None:
                    numbers_dnr[layer.angle[0], qubit, layer.angle[1]] = number
    return numbers_dnr
