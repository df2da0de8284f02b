"""Gates as data: Pauli rotations whose angles are affine in inputs and weights, and fixed gates; one function a gate.

Every gate that turns is one or several rotations exp(-i a P / 2), P a Pauli string. A rotation of the empty string is
the global phase exp(-i a / 2), so a state keeps its phase. Qubit 0 is the least significant bit, as in Qiskit.

The functions take their arguments in the order of Qiskit's QuantumCircuit (angles, then control, then target) and
return a tuple of `Gate`s; `Circuit.of` takes them as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qsgd_ray.circuits.angles import Angle, _as_angle
from qsgd_ray.circuits.plain_numbers import whole_number

_ROTATION = "rotation"
# The fixed gates, with their number of qubits.
_FIXED = {"h": 1, "x": 1, "y": 1, "z": 1, "s": 1, "sdg": 1, "t": 1, "tdg": 1, "sx": 1, "cx": 2, "cz": 2, "swap": 2}


@dataclass(frozen=True, slots=True)
class Gate:
    """Fixed gate, or Pauli rotation exp(-i angle P / 2).

    A rotation is kept in one form: qubits ascending, no letter I, its angle an `Angle`. Two that are the same gate
    compare equal.

    Attributes:
        name: h, x, y, z, s, sdg, t, tdg, sx, cx, cz, swap, or rotation.
        qubits: distinct, from 0; (control, target) for "cx".
        angle: of a rotation: an `Angle` or a number of radians. None (default) for a fixed gate.
        pauli: of a rotation: a letter X, Y, Z or I for each of `qubits`; letter i acts on qubits[i]. The empty string
            on no qubits is the global phase exp(-i angle / 2). None (default) for a fixed gate.

    Raises:
        ValueError: an unknown name or letter, qubits that are too many, too few, negative or repeated, a rotation
            without angle or pauli, or a fixed gate with one.

    Example:
        >>> Gate("rotation", (2, 0), 0.5, "XZ")
        Gate(name='rotation', qubits=(0, 2), angle=Angle(offset=0.5, terms=()), pauli='ZX')
    """

    name: str
    qubits: tuple[int, ...]
    angle: Angle | None = None
    pauli: str | None = None

    def __post_init__(self) -> None:
        qubits = tuple([whole_number(f"Gate {self.name}: qubit", qubit, 0) for qubit in self.qubits])
        if len(set(qubits)) < len(qubits):
            raise ValueError(f"Gate {self.name}: got qubits {qubits}; allowed: distinct ones")
        if self.name in _FIXED:
            if self.angle is not None or self.pauli is not None:
                given = "angle" if self.angle is not None else "pauli"
                raise ValueError(f"Gate {self.name}: got {given}={getattr(self, given)!r}; allowed: None")
            if len(qubits) != _FIXED[self.name]:
                raise ValueError(f"Gate {self.name}: got {len(qubits)} qubits; allowed: {_FIXED[self.name]}")
        elif self.name == _ROTATION:
            pauli: Any = self.pauli
            if not isinstance(pauli, str) or len(pauli) != len(qubits) or set(pauli) - set("IXYZ"):
                allowed = f"a string of X, Y, Z and I, {len(qubits)} letters for {len(qubits)} qubits"
                raise ValueError(f"Gate rotation: got pauli={pauli!r}; allowed: {allowed}")
            if len(qubits) > 1 or pauli == "I":
                pairs = sorted(pair for pair in zip(qubits, pauli, strict=True) if pair[1] != "I")
                qubits = tuple([qubit for qubit, _ in pairs])
                object.__setattr__(self, "pauli", "".join([letter for _, letter in pairs]))
            object.__setattr__(self, "angle", _as_angle("Gate rotation: angle", self.angle))
        else:
            raise ValueError(f"Gate.name: got {self.name!r}; allowed: {', '.join(_FIXED)}, {_ROTATION}")
        object.__setattr__(self, "qubits", qubits)


Gates = tuple[Gate, ...]


def pauli_rotation(pauli: str, angle: Angle | float, qubits: Sequence[int]) -> Gates:
    """Return the rotation exp(-i angle P / 2) about a Pauli string.

    Args:
        pauli: letters X, Y, Z and I. Letter i acts on qubits[i], so the order is that of `qubits`; Qiskit's labels
            are the other way round.
        angle: in radians.
        qubits: one for each letter.
    """
    return (Gate(_ROTATION, tuple(qubits), _as_angle("angle", angle), pauli),)


def phase(angle: Angle | float) -> Gates:
    """Return the global phase exp(i angle), as a rotation of no qubits; Qiskit's `global_phase`.

    Args:
        angle: in radians.
    """
    return pauli_rotation("", -2 * angle, ())


def _fixed(name: str, *qubits: int) -> Gates:
    return (Gate(name, qubits),)


def h(qubit: int) -> Gates:
    """Return the Hadamard gate."""
    return _fixed("h", qubit)


def x(qubit: int) -> Gates:
    """Return the Pauli X gate."""
    return _fixed("x", qubit)


def y(qubit: int) -> Gates:
    """Return the Pauli Y gate."""
    return _fixed("y", qubit)


def z(qubit: int) -> Gates:
    """Return the Pauli Z gate."""
    return _fixed("z", qubit)


def s(qubit: int) -> Gates:
    """Return the gate diag(1, i)."""
    return _fixed("s", qubit)


def sdg(qubit: int) -> Gates:
    """Return the inverse of `s`."""
    return _fixed("sdg", qubit)


def t(qubit: int) -> Gates:
    """Return the gate diag(1, exp(i pi / 4))."""
    return _fixed("t", qubit)


def tdg(qubit: int) -> Gates:
    """Return the inverse of `t`."""
    return _fixed("tdg", qubit)


def sx(qubit: int) -> Gates:
    """Return the square root of X, as Qiskit's SX: exp(i pi / 4) exp(-i pi X / 4)."""
    return _fixed("sx", qubit)


def sxdg(qubit: int) -> Gates:
    """Return the inverse of `sx`, its third power."""
    return x(qubit) + sx(qubit)


def cx(control: int, target: int) -> Gates:
    """Return the CNOT.

    Args:
        control: flips the target where it is 1.
        target: the qubit that is flipped.
    """
    return _fixed("cx", control, target)


def cz(control: int, target: int) -> Gates:
    """Return the controlled Z.

    Args:
        control: one of the two qubits, which the gate treats alike.
        target: the other.
    """
    return _fixed("cz", control, target)


def cy(control: int, target: int) -> Gates:
    """Return the controlled Y, as a CNOT between two fixed gates.

    Args:
        control: applies Y to the target where it is 1.
        target: the other qubit.
    """
    return sdg(target) + cx(control, target) + s(target)


def swap(first: int, second: int) -> Gates:
    """Return the exchange of two qubits.

    Args:
        first: a qubit.
        second: the other.
    """
    return _fixed("swap", first, second)


def rx(angle: Angle | float, qubit: int) -> Gates:
    """Return the rotation exp(-i angle X / 2).

    Args:
        angle: in radians.
        qubit: the qubit that it turns.
    """
    return pauli_rotation("X", angle, (qubit,))


def ry(angle: Angle | float, qubit: int) -> Gates:
    """Return the rotation exp(-i angle Y / 2).

    Args:
        angle: in radians.
        qubit: the qubit that it turns.
    """
    return pauli_rotation("Y", angle, (qubit,))


def rz(angle: Angle | float, qubit: int) -> Gates:
    """Return the rotation exp(-i angle Z / 2).

    Args:
        angle: in radians.
        qubit: the qubit that it turns.
    """
    return pauli_rotation("Z", angle, (qubit,))


def rxx(angle: Angle | float, first: int, second: int) -> Gates:
    """Return the rotation exp(-i angle XX / 2).

    Args:
        angle: in radians.
        first: a qubit.
        second: the other.
    """
    return pauli_rotation("XX", angle, (first, second))


def ryy(angle: Angle | float, first: int, second: int) -> Gates:
    """Return the rotation exp(-i angle YY / 2).

    Args:
        angle: in radians.
        first: a qubit.
        second: the other.
    """
    return pauli_rotation("YY", angle, (first, second))


def rzz(angle: Angle | float, first: int, second: int) -> Gates:
    """Return the rotation exp(-i angle ZZ / 2).

    Args:
        angle: in radians.
        first: a qubit.
        second: the other.
    """
    return pauli_rotation("ZZ", angle, (first, second))


def p(angle: Angle | float, qubit: int) -> Gates:
    """Return the gate diag(1, exp(i angle)): a rotation about Z and a global phase.

    Args:
        angle: in radians.
        qubit: the qubit that it turns.
    """
    return rz(angle, qubit) + phase(angle / 2)


def u(theta: Angle | float, phi: Angle | float, lam: Angle | float, qubit: int) -> Gates:
    """Return Qiskit's U gate, exp(i (phi + lam) / 2) Rz(phi) Ry(theta) Rz(lam), whose Rz(lam) acts first.

    Args:
        theta: in radians.
        phi: in radians.
        lam: in radians.
        qubit: the qubit that it turns.
    """
    return rz(lam, qubit) + ry(theta, qubit) + rz(phi, qubit) + phase((phi + lam) / 2)


def crx(angle: Angle | float, control: int, target: int) -> Gates:
    """Return the controlled rotation about X, as two rotations that commute.

    Args:
        angle: in radians.
        control: turns the target where it is 1.
        target: the qubit that is turned.
    """
    return rx(angle / 2, target) + pauli_rotation("ZX", -angle / 2, (control, target))


def cry(angle: Angle | float, control: int, target: int) -> Gates:
    """Return the controlled rotation about Y, as two rotations that commute.

    Args:
        angle: in radians.
        control: turns the target where it is 1.
        target: the qubit that is turned.
    """
    return ry(angle / 2, target) + pauli_rotation("ZY", -angle / 2, (control, target))


def crz(angle: Angle | float, control: int, target: int) -> Gates:
    """Return the controlled rotation about Z, as two rotations that commute.

    Args:
        angle: in radians.
        control: turns the target where it is 1.
        target: the qubit that is turned.
    """
    return rz(angle / 2, target) + pauli_rotation("ZZ", -angle / 2, (control, target))


def cp(angle: Angle | float, control: int, target: int) -> Gates:
    """Return the gate diag(1, 1, 1, exp(i angle)): rotations about Z, Z and ZZ, and a global phase.

    Args:
        angle: in radians.
        control: a qubit.
        target: the other.
    """
    return rz(angle / 2, control) + crz(angle, control, target) + phase(angle / 4)


def su4(angles: Sequence[Angle | float], first: int, second: int) -> Gates:
    """Return any gate of two qubits up to its phase, as fifteen rotations: Cartan's decomposition.

    Args:
        angles: fifteen, in radians, in the order in which they act: Rz, Ry, Rz of the first qubit, the same of the
            second, RXX, RYY, RZZ, then Rz, Ry, Rz of the first and of the second again.
        first: a qubit.
        second: the other.

    Raises:
        ValueError: not fifteen angles.
    """
    if len(angles) != 15:
        raise ValueError(f"su4: got {len(angles)} angles; allowed: 15")
    local: list[tuple[str, tuple[int, ...]]] = [(letter, (qubit,)) for qubit in (first, second) for letter in "ZYZ"]
    strings = [*local, *((letters, (first, second)) for letters in ("XX", "YY", "ZZ")), *local]
    return tuple(pauli_rotation(pauli, a, on)[0] for (pauli, on), a in zip(strings, angles, strict=True))
