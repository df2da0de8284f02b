"""Compile a circuit and what is read of it to a program: an opening, groups of rotations, and readings.

native/program.cpp runs it (_native.py), and so does its twin in torch (_torch.py). The way:

1. Gates outside the light cone of what is read leave, and with them qubits that it does not see.
2. Gates that only move basis states leave (frame.py); what is read is moved in front of them.
3. Rotations that nothing read can see are dropped: those that commute with it and with all that is kept behind them.
4. Rotations of one qubit that no rotation of more qubits precedes are the opening: they act on 2 amplitudes, not 2**n.
5. The others form groups of commuting rotations of one kind: Z strings, and those of an odd or an even number of Y.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.programs.frame import Instruction, PauliString, _Frame, _Rotation

# Groups that a rotation may pass on its way to an earlier one, and rotations that are looked at for those not seen.
_PASSED_GROUPS = 4
_SEEN_FROM = 400

Kind = Literal["diagonal", "odd", "even"]


class Reading(NamedTuple):
    """The numbers that are read of a final state.

    Attributes:
        kind: "strings", expectation values of sums of Pauli strings; "probabilities"; or "states", amplitudes.
        outputs: of "strings": for each number in the answer its (weight, string)s.
        n_read: of the others: the number of basis states read, from 0 on.
    """

    kind: Literal["strings", "probabilities", "states"]
    outputs: tuple[tuple[tuple[float, PauliString], ...], ...] = ()
    n_read: int = 0


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled circuit.

    Attributes:
        n_qubits: number of qubits n.
        n_slots: numbers that a circuit takes.
        rotations: all that are left, each exp(-i a P / 2).
        opening: of each qubit: its rotations (indices) before the first on more qubits.
        groups: the others, as (kind, indices); the rotations of a group commute.
        reading: what is read, in front of the frame.
        source: of probabilities and states: the amplitude at each place read, (n_read,) int32.
        powers: its power of i, (n_read,) uint8.
    """

    n_qubits: int
    n_slots: int
    rotations: tuple[_Rotation, ...]
    opening: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[Kind, tuple[int, ...]], ...]
    reading: Reading
    source: NDArray[np.int32]
    powers: NDArray[np.uint8]


def compile_program(n_qubits: int, n_slots: int, gates: Iterable[Instruction], reading: Reading) -> Program:
    """Compile gates.

    Args:
        n_qubits: number of qubits n.
        n_slots: numbers that a circuit takes; slots of the gates lie below.
        gates: in the order in which they act.
        reading: what is read behind the last gate.

    Returns:
        The program.
    """
    if reading.kind == "strings":
        n_qubits, gates, reading = _light_cone(n_qubits, list(gates), reading)
    frame = _Frame(n_qubits)
    for gate in gates:
        frame.apply(gate)
    outputs = tuple(tuple((weight, frame.image(string)) for weight, string in output) for output in reading.outputs)
    source, powers = np.zeros(0, np.int32), np.zeros(0, np.uint8)
    if reading.kind != "strings":
        states = frame.basis_states()
        order = np.empty(1 << n_qubits, np.int32)
        order[states] = np.arange(1 << n_qubits, dtype=np.int32)
        source = order[: reading.n_read].copy()
        powers = frame.powers()[source] if reading.kind == "states" else np.zeros(len(source), np.uint8)
    rotations = _seen(frame.rotations, reading.kind, [string for output in outputs for _, string in output])
    merged, opening, groups = _grouped(rotations, n_qubits)
    return Program(n_qubits, n_slots, merged, opening, groups, reading._replace(outputs=outputs), source, powers)


def _light_cone(n_qubits: int, gates: list[Instruction], reading: Reading) -> tuple[int, list[Instruction], Reading]:
    """Return the part of a circuit that strings see, its qubits numbered anew; at least one qubit is left."""
    seen = 0
    for output in reading.outputs:
        for _, string in output:
            seen |= string.x | string.z
    everything = (1 << n_qubits) - 1
    if seen == everything:
        return n_qubits, gates, reading
    kept = []
    for gate in reversed(gates):
        mask = 0
        for qubit in gate.qubits:
            mask |= 1 << qubit
        if mask & seen:
            seen |= mask
            kept.append(gate)
    seen |= not seen
    numbers = {qubit: number for number, qubit in enumerate(q for q in range(n_qubits) if seen >> q & 1)}
    gates = [gate._replace(qubits=tuple(numbers[qubit] for qubit in gate.qubits)) for gate in reversed(kept)]

    def moved(mask: int) -> int:
        return sum((mask >> qubit & 1) << number for qubit, number in numbers.items())

    outputs = tuple(
        tuple((weight, PauliString(moved(string.x), moved(string.z), string.power)) for weight, string in output)
        for output in reading.outputs
    )
    return len(numbers), gates, reading._replace(outputs=outputs)


def _seen(rotations: list[_Rotation], kind: str, strings: list[PauliString]) -> list[_Rotation]:
    """Drop rotations that what is read does not see: they commute with it and with all that is kept behind them."""
    if kind == "states":
        return rotations
    kept: list[_Rotation] = []
    strings = list(dict.fromkeys(string._replace(power=0) for string in strings))
    for rotation in reversed(rotations):
        string = rotation.string
        if len(kept) < _SEEN_FROM and len(strings) < _SEEN_FROM:
            # Probabilities are seen by every Z string.
            unseen = not string.x if kind == "probabilities" else all(map(string.commutes, strings))
            if unseen and all(string.commutes(other.string) for other in kept):
                continue
        kept.append(rotation)
    return kept[::-1]


def _kind(string: PauliString) -> Kind:
    if not string.x:
        return "diagonal"
    return "odd" if string.n_y & 1 else "even"


class _Builder:
    """Rotations as they are merged, and the groups of their numbers."""

    def __init__(self, n_qubits: int) -> None:
        self.rotations: list[_Rotation] = []
        self.opening: list[list[int]] = [[] for _ in range(n_qubits)]
        self.groups: list[tuple[Kind, list[int]]] = []
        self.opened = (1 << n_qubits) - 1  # qubits that no group has touched

    def add(self, rotation: _Rotation) -> None:
        """Put a rotation into the opening, or into the earliest group that it reaches."""
        support = rotation.string.x | rotation.string.z
        if support.bit_count() == 1 and support & self.opened:
            self._join(self.opening[support.bit_length() - 1], rotation, last_only=True)
            return
        self.opened &= ~support
        kind, string = _kind(rotation.string), rotation.string
        target = None
        for group in self.groups[: -_PASSED_GROUPS - 1 : -1]:
            if not all(string.commutes(self.rotations[index].string) for index in group[1]):
                break
            if group[0] == kind:
                target = group[1]
        if target is None:
            target = []
            self.groups.append((kind, target))
        self._join(target, rotation)

    def _join(self, place: list[int], rotation: _Rotation, last_only: bool = False) -> None:
        """Append a rotation, or add its angle to one about the same string, where one of the two is a number."""
        for index in place[-1:] if last_only else place:
            other = self.rotations[index]
            # The sum of two large angles would lose digits.
            is_constant = not other.terms or not rotation.terms
            if is_constant and (other.string.x, other.string.z) == (rotation.string.x, rotation.string.z):
                self.rotations[index] = _summed(other, rotation)
                return
        place.append(len(self.rotations))
        self.rotations.append(rotation)


def _summed(first: _Rotation, second: _Rotation) -> _Rotation:
    """Return two rotations about one string, or about it and its opposite, as one; one of the two is a number."""
    sign = 1 if first.string.power == second.string.power else -1
    terms = first.terms or tuple((slot, sign * factor) for slot, factor in second.terms)
    return _Rotation(first.string, first.offset + sign * second.offset, terms)


def _grouped(
    rotations: list[_Rotation], n_qubits: int
) -> tuple[tuple[_Rotation, ...], tuple[tuple[int, ...], ...], tuple[tuple[Kind, tuple[int, ...]], ...]]:
    builder = _Builder(n_qubits)
    for rotation in rotations:
        builder.add(rotation)
    groups = tuple((kind, tuple(group)) for kind, group in builder.groups)
    return tuple(builder.rotations), tuple(map(tuple, builder.opening)), groups
