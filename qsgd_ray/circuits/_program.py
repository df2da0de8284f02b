"""Compile a circuit and what is read of it to a program: an opening, groups of rotations, and readings.

native/program.cpp runs it, and so does its twin in torch (_torch_program.py). The steps of the way:

1. Gates that only move basis states leave (_pauli_frame.py); what is read is moved in front of them.
2. Rotations that nothing read can see are dropped: those that commute with it and with all that is kept behind them.
3. Rotations of one qubit that no rotation of more qubits precedes are the opening: they act on 2 amplitudes, not 2**n.
4. The others form groups of commuting rotations of one kind: Z strings, of which four share a table of phases, and
   those of an odd or an even number of Y, which are applied two at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits._pauli_frame import Frame, Instruction, LinearTerms, PauliString, Rotation, parities

# Groups that a rotation may pass on its way to an earlier one, and rotations that are looked at for those not seen.
_PASSED_GROUPS = 4
_SEEN_FROM = 400
_SET = 4

Kind = Literal["diagonal", "odd", "even"]


class Reading(NamedTuple):
    """What is read of a final state.

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
    rotations: tuple[Rotation, ...]
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
    frame = Frame(n_qubits)
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


def _seen(rotations: list[Rotation], kind: str, strings: list[PauliString]) -> list[Rotation]:
    """Drop rotations that what is read does not see: they commute with it and with all that is kept behind them."""
    if kind == "states":
        return rotations
    kept: list[Rotation] = []
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
        self.rotations: list[Rotation] = []
        self.opening: list[list[int]] = [[] for _ in range(n_qubits)]
        self.groups: list[tuple[Kind, list[int]]] = []
        self.opened = (1 << n_qubits) - 1  # qubits that no group has touched

    def add(self, rotation: Rotation) -> None:
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

    def _join(self, place: list[int], rotation: Rotation, last_only: bool = False) -> None:
        """Append a rotation, or add its angle to one about the same string."""
        for index in place[-1:] if last_only else place:
            other = self.rotations[index]
            if (other.string.x, other.string.z) == (rotation.string.x, rotation.string.z):
                self.rotations[index] = _summed(other, rotation)
                return
        place.append(len(self.rotations))
        self.rotations.append(rotation)


def _summed(first: Rotation, second: Rotation) -> Rotation:
    """Return two rotations about one string, or about it and its opposite, as one."""
    sign = 1 if first.string.power == second.string.power else -1
    factors = dict(first.terms)
    for slot, factor in second.terms:
        factors[slot] = factors.get(slot, 0.0) + sign * factor
    terms: LinearTerms = tuple(factors.items())
    return Rotation(first.string, first.offset + sign * second.offset, terms)


def _grouped(
    rotations: list[Rotation], n_qubits: int
) -> tuple[tuple[Rotation, ...], tuple[tuple[int, ...], ...], tuple[tuple[Kind, tuple[int, ...]], ...]]:
    builder = _Builder(n_qubits)
    for rotation in rotations:
        builder.add(rotation)
    groups = tuple((kind, tuple(group)) for kind, group in builder.groups)
    return tuple(builder.rotations), tuple(map(tuple, builder.opening)), groups


class Packed(NamedTuple):
    """A program as arrays, in the layout of native/program.cpp, for vectors of `2**lane_bits` amplitudes of a state.

    `lane_bits` 0: a vector has one amplitude of many circuits. Structured arrays have the fields of the C++ structures.
    """

    offsets: NDArray[np.float64]
    first_terms: NDArray[np.int64]
    slots: NDArray[np.int32]
    factors: NDArray[np.float64]
    rotations: NDArray[np.void]
    steps: NDArray[np.int32]
    sets: NDArray[np.int32]
    parities: NDArray[np.uint8]
    lane_parities: NDArray[np.uint8]
    opened: NDArray[np.int32]
    strings: NDArray[np.void]
    first_strings: NDArray[np.int64]
    output_strings: NDArray[np.int32]
    weights: NDArray[np.float64]
    n_diagonal: int


_ROTATION = np.dtype([("x", np.uint32), ("z", np.uint32), ("sign", np.float32), ("imaginary", np.int32)])
ONE, TWO, DIAGONAL = range(3)


def pack(program: Program, lane_bits: int) -> Packed:
    """Return a program as arrays.

    Args:
        program: what to pack.
        lane_bits: number of the last qubits that number a vector's lanes; 0: none.
    """
    rotations = program.rotations
    terms = [term for rotation in rotations for term in rotation.terms]
    low = (1 << program.n_qubits - lane_bits) - 1
    steps: list[tuple[int, int, int]] = []
    sets: list[tuple[int, ...]] = []
    tables: dict[tuple[int, ...], int] = {}
    for kind, group in program.groups:
        if kind == "diagonal":
            first = len(sets)
            for start in range(0, len(group), _SET):
                chosen = group[start : start + _SET]
                masks = tuple(rotations[index].string.z for index in chosen)
                table = tables.setdefault(masks, len(tables))
                sets.append((len(chosen), *chosen, *[0] * (_SET - len(chosen)), table))
            steps.append((DIAGONAL, first, len(sets) - first))
        else:
            steps += _pairs(group, [rotation.string.x & low for rotation in rotations])
    outputs = program.reading.outputs
    strings = list(dict.fromkeys((s.x, s.z) for output in outputs for _, s in output))
    strings.sort(key=lambda masks: masks[0] != 0)  # Z strings first
    numbers = {masks: number for number, masks in enumerate(strings)}
    return Packed(
        np.array([rotation.offset for rotation in rotations], np.float64),
        np.cumsum([0, *(len(rotation.terms) for rotation in rotations)], dtype=np.int64),
        np.array([slot for slot, _ in terms], np.int32),
        np.array([factor for _, factor in terms], np.float64),
        np.array([_rotation_record(rotation.string) for rotation in rotations], _ROTATION),
        np.array(steps, np.int32).reshape(-1, 3),
        np.array(sets, np.int32).reshape(-1, _SET + 2),
        _set_parities(tables, 0, program.n_qubits - lane_bits),
        _set_parities(tables, program.n_qubits - lane_bits, lane_bits),
        np.array([(q, index) for q, indices in enumerate(program.opening) for index in indices], np.int32).reshape(-1, 2),
        np.array([_string_record(PauliString(x, z, (x & z).bit_count() & 3)) for x, z in strings], _ROTATION),
        np.cumsum([0, *map(len, outputs)], dtype=np.int64),
        np.array([numbers[s.x, s.z] for output in outputs for _, s in output], np.int32),
        np.array([weight * s.sign for output in outputs for weight, s in output], np.float64),
        sum(not x for x, _ in strings),
    )


def _pairs(group: tuple[int, ...], low_x: list[int]) -> list[tuple[int, int, int]]:
    """Return the steps of a group: two rotations that move vectors in different ways at a time, the others alone."""
    steps, waiting = [], list(group)
    while waiting:
        first = waiting.pop(0)
        second = next((i for i in waiting if low_x[first] and low_x[i] not in (0, low_x[first])), None)
        if second is None:
            steps.append((ONE, first, 0))
        else:
            waiting.remove(second)
            steps.append((TWO, first, second))
    return steps


def _set_parities(tables: dict[tuple[int, ...], int], shift: int, n_bits: int) -> NDArray[np.uint8]:
    """Return for each set of masks and each number of `n_bits` bits (those from `shift` on) all parities, as bits."""
    rows = [np.zeros(1 << n_bits, np.uint8) for _ in range(max(1, len(tables)))]
    for masks, table in tables.items():
        for bit, mask in enumerate(masks):
            rows[table] |= parities(mask >> shift, n_bits) << bit
    return np.stack(rows)


def _rotation_record(string: PauliString) -> tuple[int, int, float, int]:
    """Return (x, z, sign, imaginary) of -i P: f_k = sign * (-1)^(k.z) * (i if imaginary else 1)."""
    # -i * i^y * (-1)^y, y the letters Y: -i, -1, i, 1.
    y = string.n_y & 3
    return string.x, string.z, string.sign * (-1.0 if y in (0, 1) else 1.0), int(not y & 1)


def _string_record(string: PauliString) -> tuple[int, int, float, int]:
    """Return the same of P itself: i times that of -i P."""
    x, z, sign, imaginary = _rotation_record(string)
    return x, z, -sign if imaginary else sign, 1 - imaginary
