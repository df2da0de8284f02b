"""Any circuit as a value: Pauli rotations with affine angles, and fixed gates, in the order in which they act.

`Circuit` is what engines take beside `CircuitSpec`. The numbers of its slots, inputs first, then weights, are a tensor
`values_bs` of shape (b, s), a row a circuit; `Circuit.angles` turns them into the angles of its rotations.

Letters of shapes: b batch (circuits), s slots, k rotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits._recognise import recognised
from qsgd_ray.circuits._to_qiskit import quantum_circuit, split_phase
from qsgd_ray.circuits.angles import Angle, Term, inputs
from qsgd_ray.circuits.gates import Gate, pauli_rotation
from qsgd_ray.circuits.plain_numbers import whole_number
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

_VERSION = 1


class AngleMap(NamedTuple):
    """Affine map from the numbers of the slots to the angles of the rotations, as arrays.

    Angle k is offsets[k] + the sum of factors[i] * value[slots[i]] over all i with rows[i] = k; rows do not descend.

    Attributes:
        offsets: float64, (k,), in radians.
        rows: int64, one a term: the rotation.
        slots: int64, one a term: the slot; weights follow the inputs.
        factors: float64, one a term.
    """

    offsets: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    factors: np.ndarray


@dataclass(frozen=True)
class Circuit:
    """Circuit on |0...0> of Pauli rotations with affine angles, and fixed gates; qubit 0 is the least significant bit.

    A circuit is hashable and comparable, and goes through JSON unchanged. `Circuit.of` takes gates as their functions
    in circuits/gates.py return them.

    Attributes:
        n_qubits: number of qubits n, >= 1.
        gates: in the order in which they act.
        n_inputs: number of input slots, >= 0; default 0.
        n_weights: number of weight slots, >= 0; default 0.

    Raises:
        ValueError: in one line: a number out of range, something else than gates, a gate on a qubit or with a slot that
            the circuit does not have.

    Example:
        >>> from qsgd_ray.circuits.gates import cx, h, ry
        >>> x = inputs(2)
        >>> circuit = Circuit.of(2, [h(0), ry(x[0], 0), cx(0, 1), ry(2 * x[1] + 1, 1)])
        >>> circuit.n_slots, circuit.n_rotations
        (2, 2)
        >>> circuit.angles(torch.tensor([[0.5, 3.0]]))
        tensor([[0.5000, 7.0000]])
    """

    n_qubits: int
    gates: tuple[Gate, ...]
    n_inputs: int = 0
    n_weights: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n_qubits", 1), ("n_inputs", 0), ("n_weights", 0)):
            object.__setattr__(self, name, whole_number(f"Circuit.{name}", getattr(self, name), least))
        object.__setattr__(self, "gates", tuple(self.gates))
        slots = {"input": self.n_inputs, "weight": self.n_weights}
        for index, gate in enumerate(self.gates):
            if not isinstance(gate, Gate):
                raise ValueError(f"Circuit.gates[{index}]: got {repr(gate)[:100]}; allowed: a Gate")
            if gate.qubits and max(gate.qubits) >= self.n_qubits:
                allowed = f"0 to {self.n_qubits - 1}"
                raise ValueError(
                    f"Circuit.gates[{index}]: {gate.name} got qubit {max(gate.qubits)}; allowed: {allowed}"
                )
            for kind, slot, _ in gate.angle.terms if gate.angle else ():
                if slot >= slots[kind]:
                    allowed = f"below {slots[kind]}, the circuit's n_{kind}s"
                    raise ValueError(f"Circuit.gates[{index}]: {gate.name} got {kind} {slot}; allowed: {allowed}")

    @classmethod
    def of(
        cls, n_qubits: int, gates: Iterable[Any], n_inputs: int | None = None, n_weights: int | None = None
    ) -> Circuit:
        """Return the circuit of gates and of sequences of gates, nested as they come.

        Args:
            n_qubits: number of qubits, >= 1.
            gates: `Gate`s and sequences of them, in the order in which they act.
            n_inputs: number of input slots. None (default): as many as the gates name.
            n_weights: number of weight slots. None (default): as many as the gates name.

        Raises:
            ValueError: as `Circuit`.
        """
        flat = tuple(_flat(gates))
        used = {"input": 0, "weight": 0}
        for gate in flat:
            for kind, slot, _ in gate.angle.terms if isinstance(gate, Gate) and gate.angle else ():
                used[kind] = max(used[kind], slot + 1)
        return cls(
            n_qubits,
            flat,
            used["input"] if n_inputs is None else n_inputs,
            used["weight"] if n_weights is None else n_weights,
        )

    @classmethod
    def from_spec(cls, spec: CircuitSpec) -> Circuit:
        """Return the circuit of a spec; its inputs are the flattened (d, n, r) angles, `angles_bdnr.flatten(1)`."""
        count = spec.depth * spec.n_qubits * len(spec.rotations)
        angles = np.empty(count, dtype=object)
        angles[:] = inputs(count)
        angles_dnr = angles.reshape(spec.angles_shape(1)[1:])
        gates: list[Gate] = []
        for layer in spec.layers():
            for targets in layer.targets:
                if layer.angle is None:
                    gates.append(Gate(layer.gate, targets))
                else:
                    level, index = layer.angle
                    gates += pauli_rotation(layer.gate[1].upper(), angles_dnr[level, targets[0], index], targets)
        return cls(spec.n_qubits, tuple(gates), n_inputs=count)

    def as_spec(self) -> tuple[CircuitSpec, np.ndarray] | None:
        """Return the spec that this circuit is, in whatever order gates on different qubits come; None: it is none.

        Returns:
            The spec, and the number of the rotation that each of its angles is, `dnr` of shape (d, n, r):
            `circuit.angles(values_bs)[:, dnr]` are the spec's angles_bdnr, of the same state.
        """
        return recognised(self.n_qubits, self.gates)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: the hash of a string differs between processes."""
        return {field.name: self.__dict__[field.name] for field in fields(self)}

    def __hash__(self) -> int:
        """Return the hash, computed once."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.n_qubits, self.gates, self.n_inputs, self.n_weights))

    @property
    def n_slots(self) -> int:
        """Return the number of slots, inputs and weights together: the width of `values_bs`."""
        return self.n_inputs + self.n_weights

    @cached_property
    def rotations(self) -> tuple[Gate, ...]:
        """Return the gates that turn by an angle, global phases among them, in the order in which they act."""
        return tuple(gate for gate in self.gates if gate.angle is not None)

    @property
    def n_rotations(self) -> int:
        """Return the number of rotations, the width of `angles`."""
        return len(self.rotations)

    @cached_property
    def angle_map(self) -> AngleMap:
        """Return the map from slots to angles as arrays, made once."""
        first = {"input": 0, "weight": self.n_inputs}
        angles = [gate.angle for gate in self.rotations if gate.angle is not None]
        terms = [(row, first[kind] + slot, factor) for row, a in enumerate(angles) for kind, slot, factor in a.terms]
        rows, slots, factors = zip(*terms, strict=True) if terms else ((), (), ())
        return AngleMap(
            np.array([angle.offset for angle in angles], dtype=np.float64),
            np.array(rows, dtype=np.int64),
            np.array(slots, dtype=np.int64),
            np.array(factors, dtype=np.float64),
        )

    def angles(self, values_bs: Tensor) -> Tensor:
        """Return the angles of the rotations, in the order in which they act; differentiable.

        Args:
            values_bs: numbers of the slots, real floating point, (b, s).

        Returns:
            Radians, (b, k), of the same dtype and device.

        Raises:
            ValueError: as `check_values`.
        """
        self.check_values(values_bs)
        offsets, rows, slots, factors = (torch.from_numpy(part).to(values_bs.device) for part in self.angle_map)
        terms = values_bs.index_select(1, slots) * factors.to(values_bs.dtype)
        if torch.equal(rows, torch.arange(len(offsets), device=rows.device)):  # one term each
            return offsets.to(values_bs.dtype) + terms
        return offsets.to(values_bs.dtype).repeat(len(values_bs), 1).index_add(1, rows, terms)

    def answer_width(self, readout: Readout) -> int:
        """Return the numbers in one circuit's answer: n_qubits for "z", else 1."""
        return self.n_qubits if readout == "z" else 1

    def check_values(self, values_bs: Tensor) -> None:
        """Refuse numbers that do not belong to this circuit's slots.

        Args:
            values_bs: real floating point, shape (b, s): inputs, then weights; b may be 0.

        Raises:
            ValueError: another shape, or no real floats.
        """
        shape = tuple(values_bs.shape)
        if len(shape) != 2 or shape[1] != self.n_slots:
            slots = f"{self.n_inputs} inputs and {self.n_weights} weights"
            raise ValueError(f"values: got shape {shape}; allowed for {slots}: (batch, {self.n_slots})")
        if not values_bs.is_floating_point():
            raise ValueError(f"values: got {values_bs.dtype}; allowed: a real floating-point tensor")

    def product(self) -> Circuit:
        """Return the circuit without its gates on several qubits; the slots stay."""
        gates = tuple(gate for gate in self.gates if len(gate.qubits) < 2)
        return Circuit(self.n_qubits, gates, self.n_inputs, self.n_weights)

    def unshared(self) -> Circuit:
        """Return the circuit in which rotation k turns by input k alone; its values are the angles of this one."""
        own = iter(inputs(self.n_rotations))
        gates = tuple(Gate(g.name, g.qubits, next(own), g.pauli) if g.angle is not None else g for g in self.gates)
        return Circuit(self.n_qubits, gates, n_inputs=self.n_rotations)

    def to_qiskit(self, values: Any = None) -> QuantumCircuit:
        """Return the same circuit as a Qiskit QuantumCircuit, with its global phase, without measurements.

        Args:
            values: anything that numpy reads as the numbers of the s slots: inputs, then weights. None (default): the
                slots stay Qiskit parameters, x[i] for input i and w[i] for weight i.

        Raises:
            ValueError: another number of values.
        """
        from qiskit.circuit import ParameterVector

        if values is None:
            slots = [*ParameterVector("x", self.n_inputs), *ParameterVector("w", self.n_weights)]
        else:
            given = values.detach().cpu() if isinstance(values, Tensor) else values
            slots = np.asarray(given, dtype=np.float64).tolist()
            if np.shape(slots) != (self.n_slots,):
                raise ValueError(f"values: got shape {np.shape(slots)}; allowed for one circuit: ({self.n_slots},)")
        numbers = {"input": slots[: self.n_inputs], "weight": slots[self.n_inputs :]}
        return quantum_circuit(self.n_qubits, *split_phase(self.gates), numbers)

    def draw(self, width: int = -1) -> str:
        """Return Qiskit's text drawing, with the slots named as in `to_qiskit`.

        Args:
            width: number of characters after which the drawing continues below; -1 (default): never.
        """
        # Its str() takes care of the encoding of standard output, to which it may never be written.
        return "\n".join(self.to_qiskit().draw(output="text", fold=width).lines())

    def to_json(self) -> dict[str, Any]:
        """Return the circuit as JSON data: numbers, strings, lists and dicts."""
        return {
            "version": _VERSION,
            "n_qubits": self.n_qubits,
            "n_inputs": self.n_inputs,
            "n_weights": self.n_weights,
            "gates": [_gate_to_json(gate) for gate in self.gates],
        }

    @classmethod
    def from_json(cls, data: Any) -> Circuit:
        """Return the circuit of `to_json`.

        Args:
            data: a dict, as `json.loads` returns it.

        Raises:
            ValueError: in one line: another version, an unknown or missing field, or what no circuit is.
        """
        _check_fields("Circuit", data, {"version", "n_qubits", "n_inputs", "n_weights", "gates"})
        if data["version"] != _VERSION:
            raise ValueError(f"Circuit.version: got {data['version']!r}; allowed: {_VERSION}")
        if not isinstance(data["gates"], list):
            raise ValueError(f"Circuit.gates: got {type(data['gates']).__name__}; allowed: a list")
        gates = tuple(_gate_from_json(f"Circuit.gates[{i}]", gate) for i, gate in enumerate(data["gates"]))
        return cls(data["n_qubits"], gates, data["n_inputs"], data["n_weights"])


def _flat(gates: Iterable[Any]) -> Iterator[Any]:
    for gate in gates:
        if isinstance(gate, list | tuple):
            yield from _flat(gate)
        else:
            yield gate


def _gate_to_json(gate: Gate) -> dict[str, Any]:
    if gate.angle is None:
        return {"name": gate.name, "qubits": list(gate.qubits)}
    angle = {"offset": gate.angle.offset, "terms": [list(term) for term in gate.angle.terms]}
    return {"name": gate.name, "qubits": list(gate.qubits), "pauli": gate.pauli, **angle}


def _gate_from_json(field: str, data: Any) -> Gate:
    turns = isinstance(data, dict) and "pauli" in data
    _check_fields(field, data, {"name", "qubits"} | ({"pauli", "offset", "terms"} if turns else set()))
    terms = data.get("terms", [])
    lists = all(isinstance(part, list) for part in (data["qubits"], terms))
    if not lists or not isinstance(data["name"], str) or any(not isinstance(t, list) or len(t) != 3 for t in terms):
        allowed = "a name, lists of qubits and of terms [kind, slot, factor]"
        raise ValueError(f"{field}: got {repr(data)[:100]}; allowed: {allowed}")
    try:
        angle = Angle(data["offset"], tuple(Term(*term) for term in terms)) if turns else None
        return Gate(data["name"], tuple(data["qubits"]), angle, data.get("pauli"))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _check_fields(field: str, data: Any, allowed: set[str]) -> None:
    names = set(data) if isinstance(data, dict) else None
    if names != allowed:
        given = type(data).__name__ if names is None else f"fields {', '.join(sorted(map(str, names)))}"
        raise ValueError(f"{field}: got {given}; allowed: a dict of {', '.join(sorted(allowed))}")
