"""Circuits as data: qubits, depth, rotations and entanglement; the gates that follow, a Qiskit twin, a drawing.

`CircuitSpec.layers` is the only definition of a circuit. `to_qiskit` and the simulators
(circuits/statevector/simulate.py, circuits/chain/expectations.py) follow it, so they cannot drift apart. Qubit 0 is the
least significant bit, as in Qiskit.

Letters of shapes, here and in all of circuits/: b batch (circuits), d depth (layers), n qubits, r rotations of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.plain_numbers import whole_number
from qsgd_ray.config.circuit import Entangle, Readout, Rotation, entangle_by_name

if TYPE_CHECKING:
    from qiskit import QuantumCircuit


class Layer(NamedTuple):
    """One kind of gate on several qubits, in the order in which the gates act.

    `CircuitSpec.layers` yields them: the Hadamard gates, then for each of the d layers of the circuit one `Layer` for
    each rotation and one for its CNOTs, where it has any.

    Attributes:
        gate: name of the gate, as a method of Qiskit's QuantumCircuit.
        targets: one tuple a gate: (qubit,), or (control, target) for "cx"; qubits from 0 to n - 1.
        angle: (depth index, rotation index) of a rotation's angles, each from 0; the qubit is the index between
            the two in `angles_bdnr`, so a gate on qubit i turns by angles_bdnr[:, depth index, i, rotation index]
            radians. None (default): the gate takes no angle.

    Example:
        >>> for layer in CircuitSpec(2, depth=1).layers():
        ...     print(layer)
        Layer(gate='h', targets=((0,), (1,)), angle=None)
        Layer(gate='ry', targets=((0,), (1,)), angle=(0, 0))
        Layer(gate='rz', targets=((0,), (1,)), angle=(0, 1))
        Layer(gate='cx', targets=((0, 1),), angle=None)
    """

    gate: Literal["h", "rx", "ry", "rz", "cx"]
    targets: tuple[tuple[int, ...], ...]
    angle: tuple[int, int] | None = None


@dataclass(frozen=True)
class CircuitSpec:
    """Ansatz of arXiv 2511.01918 (Eq. 5, its layers repeated `depth` times), and its variations.

    The circuit starts in |0...0> and applies

        H on every qubit,
        depth times: each of `rotations` on every qubit, then the CNOTs of `entangle`,

    with Rx(a) = exp(-i a X / 2), and Ry and Rz alike. A spec is hashable and comparable. Its angles are a tensor of
    shape (b, d, n, r), in radians (`angles_shape`).

    Attributes:
        n_qubits: number of qubits n, >= 1.
        depth: number of layers d, >= 1.
        entangle: CNOTs (control, target) at the end of every layer, in this order:
            "chain" (or True): (0,1), (1,2), ..., (n-2,n-1), as in the paper;
            "ring": the chain, then (n-1,0);
            "all": each pair (i,j) with i < j, ordered by i, then j, as Qiskit's "full" entanglement;
            "none" (or False): no CNOTs.
        rotations: names of the r rotations of a layer, in the order in which they act: "rx", "ry", "rz", repeats
            allowed.

    Raises:
        ValueError: `n_qubits` or `depth` is no whole number >= 1, `entangle` is unknown, or `rotations` is empty or has
            an unknown name.

    Example:
        >>> spec = CircuitSpec(3, depth=1)
        >>> spec.cnots()
        ((0, 1), (1, 2))
        >>> spec.angles_shape(batch=10)
        (10, 1, 3, 2)
    """

    n_qubits: int
    depth: int = 2
    entangle: Entangle = "chain"
    rotations: tuple[Rotation, ...] = ("ry", "rz")

    def __post_init__(self) -> None:
        for name in ("n_qubits", "depth"):
            object.__setattr__(self, name, whole_number(f"CircuitSpec.{name}", getattr(self, name), 1))
        given: Any = self.entangle
        entangle = entangle_by_name(bool(given) if isinstance(given, np.bool_) else given)
        object.__setattr__(self, "entangle", entangle)
        if not isinstance(entangle, str) or entangle not in get_args(Entangle):
            allowed = ", ".join(get_args(Entangle))
            raise ValueError(f"CircuitSpec.entangle: got {entangle!r}; allowed: {allowed}, True or False")
        rotations: Any = self.rotations
        known = get_args(Rotation)
        if isinstance(rotations, list | np.ndarray):
            object.__setattr__(self, "rotations", rotations := tuple(np.asarray(rotations, dtype=object).tolist()))
        if not isinstance(rotations, tuple) or not rotations or any(name not in known for name in rotations):
            raise ValueError(f"CircuitSpec.rotations: got {rotations!r}; allowed: one or more of {', '.join(known)}")

    def layers(self) -> Iterator[Layer]:
        """Yield the gates in the order in which they act, from the Hadamard gates on."""
        qubits = tuple((qubit,) for qubit in range(self.n_qubits))
        cnots = self.cnots()
        yield Layer("h", qubits)
        for level in range(self.depth):
            for index, rotation in enumerate(self.rotations):
                yield Layer(rotation, qubits, (level, index))
            if cnots:
                yield Layer("cx", cnots)

    def cnots(self) -> tuple[tuple[int, int], ...]:
        """Return the entangling gates (control, target) of one layer, in order."""
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
        """Return (b, d, n, r), the shape of the angles of `batch` circuits."""
        return (batch, self.depth, self.n_qubits, len(self.rotations))

    def answer_width(self, readout: Readout) -> int:
        """Return the numbers in one circuit's answer: n_qubits for "z", else 1."""
        return self.n_qubits if readout == "z" else 1

    def check_angles(self, angles_bdnr: Tensor) -> None:
        """Refuse angles that do not belong to this circuit.

        Args:
            angles_bdnr: real floating point, shape (b, d, n, r), in radians; b may be 0.

        Raises:
            ValueError: another shape, or no real floats.
        """
        shape, expected = tuple(angles_bdnr.shape), self.angles_shape(0)[1:]
        if len(shape) != 4 or shape[1:] != expected:
            allowed = ", ".join(map(str, expected))
            raise ValueError(f"angles: got shape {shape}; allowed for {self}: (batch, {allowed})")
        if not angles_bdnr.is_floating_point():
            raise ValueError(f"angles: got {angles_bdnr.dtype}; allowed: a real floating-point tensor")

    def to_qiskit(self, angles_dnr: Any = None) -> QuantumCircuit:
        """Return the same circuit as a Qiskit QuantumCircuit, without measurements.

        Args:
            angles_dnr: anything that numpy reads as (d, n, r) numbers in radians, or as (1, d, n, r). None (default):
                the angles stay Qiskit parameters, named a[layer,qubit] for the first rotation, b[layer,qubit] for the
                second and so on.

        Returns:
            A circuit of one register of `n_qubits` qubits.

        Raises:
            ValueError: another shape.
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
        """Return Qiskit's text drawing, with the angles named as in `to_qiskit`.

        Args:
            width: number of characters after which the drawing continues below; -1 (default): never.
        """
        # Its str() takes care of the encoding of standard output, to which it may never be written.
        return "\n".join(self.to_qiskit().draw(output="text", fold=width).lines())


def parameter_columns(spec: CircuitSpec, circuit: Any) -> list[tuple[Any, int]]:
    """Match the parameters of a Qiskit circuit with the flattened angles of its spec.

    Args:
        spec: the circuit as data.
        circuit: `spec.to_qiskit()`, with its angles as parameters.

    Returns:
        One (parameter, index) for each parameter, in the circuit's order; the index is that of its angle in the
        flattened (d, n, r) angles.
    """
    columns = []
    for parameter in circuit.parameters:
        level, qubit = map(int, parameter.name[2:-1].split(","))  # a[level,qubit], b[level,qubit]: see to_qiskit
        rotation = ord(parameter.name[0]) - ord("a")
        columns.append((parameter, (level * spec.n_qubits + qubit) * len(spec.rotations) + rotation))
    return columns
