"""A circuit as data: number of qubits, depth, entangled or not in; its layers of gates, a Qiskit twin, a drawing out.

`layers()` is the only definition. `to_qiskit` and the torch simulator (statevector.py) both walk it, so they cannot
drift apart. Qubit 0 is the least significant bit, as in Qiskit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

RY, RZ = 0, 1  # the last axis of angles_bdn2


class Layer(NamedTuple):
    """One kind of gate on several qubits, in order.

    `targets`: one tuple a gate: (qubit,), or (control, target) for "cx". `angle`: which angles a rotation takes, as
    (depth index, RY or RZ); the qubit is the index between them in angles_bdn2. None for gates without an angle.
    """

    gate: Literal["h", "ry", "rz", "cx"]
    targets: tuple[tuple[int, ...], ...]
    angle: tuple[int, int] | None = None


@dataclass(frozen=True)
class CircuitSpec:
    """The ansatz of arXiv 2511.01918 (Sec. on the quantum circuit; Eq. 5 with the layers repeated `depth` times).

        H on every qubit
        depth times:  Ry(a_di), then Rz(b_di) on every qubit i;  if entangle: CNOT(0->1), CNOT(1->2), ...

    Angles have the shape (batch, depth, n_qubits, 2), in radians; the last axis is (Ry, Rz). ValueError: a number of
    qubits or a depth that is no whole number >= 1, or an `entangle` that is no bool.
    """

    n_qubits: int
    depth: int = 2
    entangle: bool = True

    def __post_init__(self) -> None:
        for name in ("n_qubits", "depth"):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"CircuitSpec.{name}: got {value!r}; allowed: a whole number >= 1")
        entangle: Any = self.entangle
        if not isinstance(entangle, bool):
            raise ValueError(f"CircuitSpec.entangle: got {entangle!r}; allowed: True or False")

    def layers(self) -> Iterator[Layer]:
        """The gates in the order in which they act."""
        every = tuple((qubit,) for qubit in range(self.n_qubits))
        chain = tuple((qubit, qubit + 1) for qubit in range(self.n_qubits - 1))
        yield Layer("h", every)
        for level in range(self.depth):
            yield Layer("ry", every, (level, RY))
            yield Layer("rz", every, (level, RZ))
            if self.entangle and chain:
                yield Layer("cx", chain)

    def angles_shape(self, batch: int) -> tuple[int, int, int, int]:
        return (batch, self.depth, self.n_qubits, 2)

    def check_angles(self, angles_bdn2: Tensor) -> None:
        """ValueError in one line unless `angles_bdn2` is a (batch, depth, n_qubits, 2) tensor of real floats."""
        shape = tuple(angles_bdn2.shape)
        if len(shape) != 4 or shape[1:] != (self.depth, self.n_qubits, 2):
            raise ValueError(
                f"angles: got shape {shape}; allowed for {self}: (batch, {self.depth}, {self.n_qubits}, 2)"
            )
        if not angles_bdn2.is_floating_point():
            raise ValueError(f"angles: got {angles_bdn2.dtype}; allowed: a real floating-point tensor")

    def to_qiskit(self, angles_dn2: Any = None) -> QuantumCircuit:
        """The Qiskit twin of one circuit.

        `angles_dn2`: anything that numpy reads as (depth, n_qubits, 2) numbers in radians, a (1, depth, n_qubits, 2)
        batch of one, or None: then the angles stay Qiskit parameters a[d,i] and b[d,i]. ValueError: another shape.
        """
        from qiskit import QuantumCircuit
        from qiskit.circuit import Parameter

        shape = self.angles_shape(1)[1:]
        if angles_dn2 is None:
            angles = np.empty(shape, dtype=object)
            for level, qubit, axis in np.ndindex(shape):
                angles[level, qubit, axis] = Parameter(f"{'ab'[axis]}[{level},{qubit}]")
        else:
            given = angles_dn2.detach().cpu() if isinstance(angles_dn2, torch.Tensor) else angles_dn2
            angles = np.asarray(given, dtype=np.float64)
            if angles.shape not in (shape, (1, *shape)):
                raise ValueError(f"angles: got shape {angles.shape}; allowed for one {self}: {shape}")
            angles = angles.reshape(shape)
        circuit = QuantumCircuit(self.n_qubits)
        for layer in self.layers():
            for targets in layer.targets:
                if layer.angle is None:
                    getattr(circuit, layer.gate)(*targets)
                else:
                    level, axis = layer.angle
                    (qubit,) = targets
                    getattr(circuit, layer.gate)(angles[level, qubit, axis], qubit)
        return circuit

    def draw(self) -> str:
        """A text drawing, with the angles as a[d,i] (Ry) and b[d,i] (Rz)."""
        return str(self.to_qiskit().draw(output="text", fold=-1))
