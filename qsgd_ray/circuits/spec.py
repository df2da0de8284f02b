"""A circuit as data: qubits, depth, rotations and entanglement in; its layers of gates, a Qiskit twin, a drawing out.

`layers()` is the only definition. `to_qiskit` and the simulators (circuits/statevector/simulate.py,
circuits/chain/expectations.py) follow it, so they cannot drift apart. Qubit 0 is the least significant bit, as in
Qiskit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.config.circuit import Entangle, Readout, Rotation, entangle_by_name

if TYPE_CHECKING:
    from qiskit import QuantumCircuit


class Layer(NamedTuple):
    """One kind of gate on several qubits, in order.

    `targets`: one tuple a gate: (qubit,), or (control, target) for "cx". `angle`: which angles a rotation takes, as
    (depth index, rotation index); the qubit is the index between them in angles_bdnr. None: a gate without an angle.
    """

    gate: Literal["h", "rx", "ry", "rz", "cx"]
    targets: tuple[tuple[int, ...], ...]
    angle: tuple[int, int] | None = None


@dataclass(frozen=True)
class CircuitSpec:
    """The ansatz of arXiv 2511.01918 (Eq. 5, its layers repeated `depth` times), and its variations.

        H on every qubit
        depth times:  each of `rotations` on every qubit, then the CNOTs of `entangle`

    `entangle`, with CNOTs (control, target) in this order:
    - "chain" (True): (0,1), (1,2), ..., (n-2,n-1), the paper's;
    - "ring": the chain, then (n-1,0);
    - "all": every pair (i,j) with i < j, ordered by i, then j, as Qiskit's "full" entanglement;
    - "none" (False).

    Angles have the shape (batch, depth, n_qubits, len(rotations)), in radians. ValueError in one line: a number of
    qubits or a depth that is no whole number >= 1, another `entangle`, rotations that are none or unknown.
    """

    n_qubits: int
    depth: int = 2
    entangle: Entangle = "chain"
    rotations: tuple[Rotation, ...] = ("ry", "rz")

    def __post_init__(self) -> None:
        for name in ("n_qubits", "depth"):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"CircuitSpec.{name}: got {value!r}; allowed: a whole number >= 1")
        entangle = entangle_by_name(self.entangle)
        object.__setattr__(self, "entangle", entangle)
        if entangle not in get_args(Entangle):
            allowed = ", ".join(get_args(Entangle))
            raise ValueError(f"CircuitSpec.entangle: got {entangle!r}; allowed: {allowed}, True or False")
        rotations: Any = self.rotations
        known = get_args(Rotation)
        if isinstance(rotations, list):
            object.__setattr__(self, "rotations", rotations := tuple(rotations))
        if not isinstance(rotations, tuple) or not rotations or any(name not in known for name in rotations):
            raise ValueError(f"CircuitSpec.rotations: got {rotations!r}; allowed: one or more of {', '.join(known)}")

    def layers(self) -> Iterator[Layer]:
        """The gates in the order in which they act."""
        every = tuple((qubit,) for qubit in range(self.n_qubits))
        cnots = self.cnots()
        yield Layer("h", every)
        for level in range(self.depth):
            for index, rotation in enumerate(self.rotations):
                yield Layer(rotation, every, (level, index))
            if cnots:
                yield Layer("cx", cnots)

    def cnots(self) -> tuple[tuple[int, int], ...]:
        """The entangling gates (control, target) of one layer, in order."""
        n = self.n_qubits
        match self.entangle:
            case "none":
                return ()
            case "all":
                return tuple((control, target) for control in range(n) for target in range(control + 1, n))
            case "chain" | "ring":
                closing = ((n - 1, 0),) if self.entangle == "ring" and n > 1 else ()
                return (*((qubit, qubit + 1) for qubit in range(n - 1)), *closing)

    def angles_shape(self, batch: int) -> tuple[int, int, int, int]:
        return (batch, self.depth, self.n_qubits, len(self.rotations))

    def answer_width(self, readout: Readout) -> int:
        """How many numbers a circuit answers."""
        return self.n_qubits if readout == "z" else 1

    def check_angles(self, angles_bdnr: Tensor) -> None:
        """ValueError in one line unless these are (batch, depth, n_qubits, len(rotations)) real floats."""
        shape, expected = tuple(angles_bdnr.shape), self.angles_shape(0)[1:]
        if len(shape) != 4 or shape[1:] != expected:
            allowed = ", ".join(map(str, expected))
            raise ValueError(f"angles: got shape {shape}; allowed for {self}: (batch, {allowed})")
        if not angles_bdnr.is_floating_point():
            raise ValueError(f"angles: got {angles_bdnr.dtype}; allowed: a real floating-point tensor")

    def to_qiskit(self, angles_dnr: Any = None) -> QuantumCircuit:
        """The Qiskit twin of one circuit.

        `angles_dnr`: anything that numpy reads as (depth, n_qubits, len(rotations)) numbers in radians, a batch of one
        such, or None: then the angles stay Qiskit parameters, a[d,i] for the first rotation, b[d,i] for the second and
        so on. ValueError: another shape.
        """
        from qiskit import QuantumCircuit
        from qiskit.circuit import Parameter

        shape = self.angles_shape(1)[1:]
        if angles_dnr is None:
            angles = np.empty(shape, dtype=object)
            for level, qubit, index in np.ndindex(shape):
                angles[level, qubit, index] = Parameter(f"{chr(ord('a') + index)}[{level},{qubit}]")
        else:
            given = angles_dnr.detach().cpu() if isinstance(angles_dnr, torch.Tensor) else angles_dnr
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
                    level, index = layer.angle
                    (qubit,) = targets
                    getattr(circuit, layer.gate)(angles[level, qubit, index], qubit)
        return circuit

    def draw(self, width: int = -1) -> str:
        """A text drawing with the angles named as in `to_qiskit`, folded at `width` characters; -1: never."""
        return str(self.to_qiskit().draw(output="text", fold=width))


def parameter_columns(spec: CircuitSpec, circuit: Any) -> list[tuple[Any, int]]:
    """Each parameter of a twin of `spec`, in the circuit's order, and the flattened angle (depth, qubit, rotation)."""
    columns = []
    for parameter in circuit.parameters:
        level, qubit = map(int, parameter.name[2:-1].split(","))  # a[level,qubit], b[level,qubit]: spec.to_qiskit
        rotation = ord(parameter.name[0]) - ord("a")
        columns.append((parameter, (level * spec.n_qubits + qubit) * len(spec.rotations) + rotation))
    return columns
