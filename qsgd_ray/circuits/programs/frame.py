"""Rotations as signed Pauli strings behind which every gate that only moves basis states is left out.

Any circuit is F R_m ... R_1 |0...0>: R_i are rotations exp(-i a P / 2), and F, the frame, maps each basis state to one
basis state times a power of i. A gate of the frame (X, CNOT, S, ...) passes through a rotation by changing its string,
P -> G^dagger P G, so only rotations are left to simulate. H = X Ry(pi/2) and SX, T are rotations beside such gates.

A string is i^p X^x Z^z (Z acts first): x and z are masks of qubits, bit q of qubit q, and p counts modulo 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.circuit import Circuit
from qsgd_ray.circuits.spec import CircuitSpec

LinearTerms = tuple[tuple[int, float], ...]  # (slot, factor)


class Instruction(NamedTuple):
    """A gate by its name; a rotation by its string and its angle, offset + sum of factor * slot."""

    name: str
    qubits: tuple[int, ...]
    pauli: str = ""
    offset: float = 0.0
    terms: LinearTerms = ()


class PauliString(NamedTuple):
    """i^power X^x Z^z."""

    x: int
    z: int
    power: int

    def times(self, other: PauliString) -> PauliString:
        """Return the product; `other` acts first."""
        sign = 2 * ((self.z & other.x).bit_count() & 1)
        return PauliString(self.x ^ other.x, self.z ^ other.z, (self.power + other.power + sign) & 3)

    def commutes(self, other: PauliString) -> bool:
        """Return True where both orders of the two give the same."""
        return not ((self.x & other.z).bit_count() + (self.z & other.x).bit_count()) & 1

    @property
    def n_y(self) -> int:
        """Number of letters Y."""
        return (self.x & self.z).bit_count()

    @property
    def sign(self) -> int:
        """1 or -1: that of the product of letters, where Y = i X Z has one i a letter."""
        return 1 - ((self.power - self.n_y) & 3)


def pauli_string(letters: str, qubits: Iterable[int]) -> PauliString:
    """Return the product of Pauli letters.

    Args:
        letters: X, Y, Z and I.
        qubits: one a letter, distinct: letter i acts on qubits[i].
    """
    x = z = 0
    for letter, qubit in zip(letters, qubits, strict=True):
        x |= (letter in "XY") << qubit
        z |= (letter in "ZY") << qubit
    return PauliString(x, z, (x & z).bit_count() & 3)


class _Rotation(NamedTuple):
    """exp(-i a P / 2), a = offset + sum of factor * slot."""

    string: PauliString
    offset: float
    terms: LinearTerms


def spec_instructions(spec: CircuitSpec) -> Iterator[Instruction]:
    """Yield the gates of a spec; its slots are its angles, flattened from (d, n, r)."""
    width = len(spec.rotations)
    for layer in spec.layers():
        for targets in layer.targets:
            if layer.angle is None:
                yield Instruction(layer.gate, targets)
            else:
                level, index = layer.angle
                slot = (level * spec.n_qubits + targets[0]) * width + index
                yield Instruction("rotation", targets, layer.gate[1].upper(), 0.0, ((slot, 1.0),))


def circuit_instructions(circuit: Circuit) -> Iterator[Instruction]:
    """Yield the gates of a circuit; its slots are its inputs, then its weights."""
    first = {"input": 0, "weight": circuit.n_inputs}
    for gate in circuit.gates:
        if gate.angle is None or gate.pauli is None:
            yield Instruction(gate.name, gate.qubits)
        else:
            terms = tuple((first[kind] + slot, factor) for kind, slot, factor in gate.angle.terms)
            yield Instruction("rotation", gate.qubits, gate.pauli, gate.angle.offset, terms)


class _Frame:
    """The gates so far that only move basis states, F: what they do to strings and to basis states.

    Attributes:
        rotations: those met so far, each as it acts before F.
    """

    def __init__(self, n_qubits: int) -> None:
        self.n = n_qubits
        self.rotations: list[_Rotation] = []
        self._x = [PauliString(1 << q, 0, 0) for q in range(n_qubits)]  # F^dagger X_q F
        self._z = [PauliString(0, 1 << q, 0) for q in range(n_qubits)]
        # Bit q of the state that F makes of k is parity(k & row) ^ bit; its power of i, a sum of products of bits.
        self._bits = [(1 << q, 0) for q in range(n_qubits)]
        self._powers: list[tuple[int, tuple[tuple[int, int], ...]]] = []
        self._constant_power = 0

    def apply(self, gate: Instruction) -> None:
        """Append a gate."""
        match gate.name:
            case "rotation":
                self._rotate(gate.pauli, gate.qubits, gate.offset, gate.terms)
            case "h":  # X Ry(pi/2)
                self._rotate("Y", gate.qubits, math.pi / 2)
                self._move("x", *gate.qubits)
            case "sx":  # exp(i pi/4) Rx(pi/2)
                self._rotate("", (), -math.pi / 2)
                self._rotate("X", gate.qubits, math.pi / 2)
            case "t" | "tdg":  # exp(i pi/8) Rz(pi/4), or its inverse
                angle = math.pi / 4 if gate.name == "t" else -math.pi / 4
                self._rotate("", (), -angle)
                self._rotate("Z", gate.qubits, angle)
            case _:
                self._move(gate.name, *gate.qubits)

    def image(self, string: PauliString) -> PauliString:
        """Return F^dagger P F: behind F, P acts as this does before it."""
        result = PauliString(0, 0, string.power)
        for mask, images in ((string.x, self._x), (string.z, self._z)):
            while mask:
                qubit = (mask & -mask).bit_length() - 1
                result = result.times(images[qubit])
                mask &= mask - 1
        return result

    def basis_states(self) -> NDArray[np.int64]:
        """Return the basis state that F makes of each, (2**n,)."""
        states = np.zeros(1, np.int64)
        for q in range(self.n):
            column = sum((row >> q & 1) << bit for bit, (row, _) in enumerate(self._bits))
            states = np.concatenate((states, states ^ column))
        return states ^ sum(value << bit for bit, (_, value) in enumerate(self._bits))

    def powers(self) -> NDArray[np.uint8]:
        """Return the power of i that F gives each basis state, (2**n,)."""
        powers = np.full(1 << self.n, self._constant_power, np.uint8)
        for factor, bits in self._powers:
            product = np.full(1 << self.n, factor, np.uint8)
            for row, value in bits:
                product *= _parities(row, self.n) ^ value
            powers += product
        powers &= 3
        return powers

    def _rotate(self, letters: str, qubits: tuple[int, ...], offset: float, terms: LinearTerms = ()) -> None:
        self.rotations.append(_Rotation(self.image(pauli_string(letters, qubits)), offset, terms))

    def _move(self, name: str, first: int, second: int = -1) -> None:
        x, z, bits = self._x, self._z, self._bits
        minus = PauliString(0, 0, 2)
        match name:
            case "x" | "y":
                if name == "y":  # i X Z
                    x[first] = x[first].times(minus)
                    self._constant_power += 1
                    self._powers.append((2, (bits[first],)))
                z[first] = z[first].times(minus)
                row, value = bits[first]
                bits[first] = row, value ^ 1
            case "z" | "s" | "sdg":
                power = {"z": 2, "s": 1, "sdg": 3}[name]
                # Z^dagger X Z = -X; S^dagger X S = -Y = -i X Z; and for the inverse i X Z.
                own = minus if name == "z" else PauliString(0, 0, 4 - power).times(z[first])
                x[first] = x[first].times(own)
                self._powers.append((power, (bits[first],)))
            case "cx":
                x[first] = x[first].times(x[second])
                z[second] = z[first].times(z[second])
                (row, value), (other_row, other_value) = bits[first], bits[second]
                bits[second] = row ^ other_row, value ^ other_value
            case "cz":
                x[first], x[second] = x[first].times(z[second]), x[second].times(z[first])
                self._powers.append((2, (bits[first], bits[second])))
            case "swap":
                for images in (x, z):
                    images[first], images[second] = images[second], images[first]
                bits[first], bits[second] = bits[second], bits[first]
            case _:
                raise ValueError(f"gate: got {name!r}; allowed: gates of circuits/gates.py")


def _parities(mask: int, n_bits: int) -> NDArray[np.uint8]:
    """Return the parity of k & mask for each k below 2**n_bits."""
    result = np.zeros(1, np.uint8)
    for bit in range(n_bits):
        result = np.concatenate((result, result ^ (mask >> bit & 1)))
    return result
