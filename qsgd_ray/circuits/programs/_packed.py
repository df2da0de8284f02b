"""Lay a program out as arrays for native/program.cpp (its structures: native/program.h).

Rotations become steps: two that move vectors in different ways at a time, and up to four Z strings with one table of
their 16 phases. Steps of a large state form blocks: in one, vectors meet only others of their coset of a small group
(all sums, xor, of at most 2**_BLOCK_BITS offsets), which stays in the cache while all steps of the block pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.programs.frame import PauliString, _parities
from qsgd_ray.circuits.programs.program import Program

# States of more than 2**_WHOLE_BITS vectors are computed in blocks.
_WHOLE_BITS = 13
_BLOCK_BITS = 10
_LOW_BITS = 2  # neighbours that a block always takes together
_SET = 4
ONE, TWO, DIAGONAL = range(3)
_ROTATION = np.dtype(
    [(name, np.uint32) for name in ("x", "z", "z_state", "lanes_x", "lanes_z")]
    + [("sign", np.float32), ("imaginary", np.int32)]
)


class Packed(NamedTuple):
    """A program as the arrays and numbers of the structure `Program` of native/program.h."""

    offsets: NDArray[np.float64]
    first_terms: NDArray[np.int64]
    slots: NDArray[np.int32]
    factors: NDArray[np.float64]
    rotations: NDArray[np.void]
    steps: NDArray[np.int32]
    sets: NDArray[np.int32]
    parities: NDArray[np.uint8]
    lane_parities: NDArray[np.uint8]
    blocks: NDArray[np.int32]
    coset_offsets: NDArray[np.int32]
    pivots: NDArray[np.int32]
    opened: NDArray[np.int32]
    strings: NDArray[np.void]
    first_strings: NDArray[np.int64]
    output_strings: NDArray[np.int32]
    weights: NDArray[np.float64]
    n_diagonal: int
    buffer: int
    most_steps: int
    most_sets: int


class _Span:
    """A subspace of masks over GF(2), in reduced form: each basis vector has a bit, its pivot, that no other has."""

    def __init__(self) -> None:
        self.basis: dict[int, int] = {}  # pivot bit -> mask

    def rank_with(self, masks: list[int]) -> int:
        """Return the rank with these masks added."""
        other = _Span()
        other.basis = dict(self.basis)
        for mask in masks:
            other.add(mask)
        return len(other.basis)

    def add(self, mask: int) -> None:
        for pivot, vector in self.basis.items():
            if mask >> pivot & 1:
                mask ^= vector
        if mask:
            top = mask.bit_length() - 1
            for pivot, vector in self.basis.items():
                if vector >> top & 1:
                    self.basis[pivot] = vector ^ mask
            self.basis[top] = mask


@dataclass
class _Block:
    """Rotations that are taken together: groups of Z strings or of others, in order; and the span of their x."""

    span: _Span = field(default_factory=_Span)
    groups: list[tuple[bool, list[int]]] = field(default_factory=list)  # (diagonal, indices)


def pack(program: Program, lane_bits: int) -> Packed:
    """Return a program as arrays.

    Args:
        program: what to pack.
        lane_bits: number of the last qubits that number a vector's lanes; 0: a vector has one amplitude of many
            circuits.
    """
    return _Packer(program, lane_bits).packed()


class _Packer:
    def __init__(self, program: Program, lane_bits: int) -> None:
        self.program, self.lane_bits = program, lane_bits
        self.bits = program.n_qubits - lane_bits
        self.low = (1 << self.bits) - 1
        self.steps: list[tuple[int, int, int]] = []
        self.sets: list[tuple[int, ...]] = []
        self.tables: list[NDArray[np.uint8]] = []
        self.table_size = 0
        self.lane_tables: dict[tuple[int, ...], int] = {}
        self.records = [_record(r.string, self.bits) for r in program.rotations]

    def packed(self) -> Packed:
        rotations, outputs = self.program.rotations, self.program.reading.outputs
        terms = [term for rotation in rotations for term in rotation.terms]
        blocks: list[tuple[int, ...]] = []
        offsets, pivots = [np.zeros(0, np.int32)], list[int]()
        n_offsets = 0
        for block in self._blocks():
            first_step, first_set = len(self.steps), len(self.sets)
            basis = sorted(block.span.basis.items(), key=lambda item: item[1])
            self._add_steps(block, basis)
            coset = _sums([mask for _, mask in basis])
            n_steps, n_sets = len(self.steps) - first_step, len(self.sets) - first_set
            blocks.append((first_step, n_steps, len(basis), n_offsets, len(pivots), n_sets))
            n_offsets += len(coset)
            offsets.append(coset)
            pivots += sorted(1 << pivot for pivot, _ in basis)
        opened = [(qubit, index) for qubit, indices in enumerate(self.program.opening) for index in indices]
        strings = list(dict.fromkeys((s.x, s.z) for output in outputs for _, s in output))
        strings.sort(key=lambda masks: masks[0] != 0)  # Z strings first
        numbers = {masks: number for number, masks in enumerate(strings)}
        in_place = all(block[2] == self.bits for block in blocks)
        lane_masks = list(self.lane_tables) or [()]
        return Packed(
            np.array([(math.cos(r.offset / 2), math.sin(r.offset / 2)) for r in rotations], np.float64).reshape(-1, 2),
            np.cumsum([0, *(len(rotation.terms) for rotation in rotations)], dtype=np.int64),
            np.array([slot for slot, _ in terms], np.int32),
            np.array([factor for _, factor in terms], np.float64),
            np.array(self.records, _ROTATION),
            np.array(self.steps, np.int32).reshape(-1, 3),
            np.array(self.sets, np.int32).reshape(-1, _SET + 3),
            np.concatenate([np.zeros(0, np.uint8), *self.tables]),
            np.stack([_set_parities(masks, self.bits, self.lane_bits) for masks in lane_masks]),
            np.array(blocks, np.int32).reshape(-1, 6),
            np.concatenate(offsets),
            np.array(pivots, np.int32),
            np.array(opened, np.int32).reshape(-1, 2),
            np.array([_string_record(x, z, self.bits) for x, z in strings], _ROTATION),
            np.cumsum([0, *map(len, outputs)], dtype=np.int64),
            np.array([numbers[s.x, s.z] for output in outputs for _, s in output], np.int32),
            np.array([weight * s.sign for output in outputs for weight, s in output], np.float64),
            n_diagonal=sum(not x for x, _ in strings),
            buffer=0 if in_place else max(1 << block[2] for block in blocks),
            most_steps=max((block[1] for block in blocks), default=0),
            most_sets=max((block[5] for block in blocks), default=0),
        )

    def _blocks(self) -> list[_Block]:
        """Fill one block after the other."""
        if self.bits <= _WHOLE_BITS:
            whole = self._new_block(self.bits)
            whole.groups = [(kind == "diagonal", list(group)) for kind, group in self.program.groups]
            return [whole] if whole.groups else []
        blocks: list[_Block] = []
        for kind, group in self.program.groups:
            waiting = list(group)
            while waiting:
                if not blocks:
                    blocks.append(self._new_block(_LOW_BITS))
                block, left, fitting = blocks[-1], [], []
                for index in waiting:  # those of a group commute
                    x = self.program.rotations[index].string.x & self.low
                    if block.span.rank_with([x]) <= _BLOCK_BITS:
                        block.span.add(x)
                        fitting.append(index)
                    else:
                        left.append(index)
                if fitting:
                    block.groups.append((kind == "diagonal", fitting))
                if left:
                    blocks.append(self._new_block(_LOW_BITS))
                waiting = left
        return blocks

    def _new_block(self, low_bits: int) -> _Block:
        block = _Block()
        for bit in range(low_bits):
            block.span.add(1 << bit)
        return block

    def _add_steps(self, block: _Block, basis: list[tuple[int, int]]) -> None:
        """Append a block's steps; give its rotations their masks in the coordinates of its basis."""
        for diagonal, group in block.groups:
            for index in group:
                record = self.records[index]
                local_x = sum((record[0] >> pivot & 1) << i for i, (pivot, _) in enumerate(basis))
                self.records[index] = (local_x, _local_z(record[2], basis), *record[2:])
            if not diagonal:
                self.steps += _pairs(group, [record[0] for record in self.records])
                continue
            first = len(self.sets)
            for start in range(0, len(group), _SET):
                chosen = group[start : start + _SET]
                masks = tuple(self.program.rotations[index].string.z for index in chosen)
                lanes = self.lane_tables.setdefault(tuple(mask & ~self.low for mask in masks), len(self.lane_tables))
                self.sets.append((len(chosen), *chosen, *[0] * (_SET - len(chosen)), self.table_size, lanes))
                table = _set_parities(tuple(self.records[index][1] for index in chosen), 0, len(basis))
                self.tables.append(table)
                self.table_size += len(table)
            self.steps.append((DIAGONAL, first, len(self.sets) - first))


def _local_z(z: int, basis: list[tuple[int, int]]) -> int:
    return sum(((z & mask).bit_count() & 1) << i for i, (_, mask) in enumerate(basis))


def _sums(masks: list[int]) -> NDArray[np.int32]:
    """Return all sums (xor) of masks, at the number whose bits say which."""
    sums = np.zeros(1, np.int32)
    for mask in masks:
        sums = np.concatenate((sums, sums ^ mask))
    return sums


def _pairs(group: list[int], x: list[int]) -> list[tuple[int, int, int]]:
    """Return the steps of a group: two rotations that move vectors in different ways at a time, the others alone."""
    steps, waiting = [], list(group)
    while waiting:
        first = waiting.pop(0)
        second = next((index for index in waiting if x[first] and x[index] not in (0, x[first])), None)
        if second is None:
            steps.append((ONE, first, 0))
        else:
            waiting.remove(second)
            steps.append((TWO, first, second))
    return steps


def _set_parities(masks: tuple[int, ...], shift: int, n_bits: int) -> NDArray[np.uint8]:
    """Return for each number of `n_bits` bits (those of the masks from `shift` on) all parities, mask i at bit i."""
    row = np.zeros(1 << n_bits, np.uint8)
    for bit, mask in enumerate(masks):
        row |= _parities(mask >> shift, n_bits) << bit
    return row


def _record(string: PauliString, bits: int) -> tuple[int, ...]:
    """Return the structure `Rotation` of -i P: f_k = sign * (-1)^(k.z) * (i if imaginary else 1)."""
    low = (1 << bits) - 1
    y = string.n_y & 3  # -i i^y (-1)^y: -i, -1, i, 1
    sign = string.sign * (-1 if y in (0, 1) else 1)
    lanes = string.x >> bits, string.z >> bits
    return string.x & low, string.z & low, string.z & low, *lanes, sign, int(not y & 1)


def _string_record(x: int, z: int, bits: int) -> tuple[int, ...]:
    """Return the same of P itself, i times that of -i P."""
    *masks, sign, imaginary = _record(PauliString(x, z, (x & z).bit_count() & 3), bits)
    return *masks, -sign if imaginary else sign, 1 - imaginary
