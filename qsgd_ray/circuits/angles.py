"""Angles as data: affine in the numbers of slots, which are inputs (of a sample) and weights (of a training)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from qsgd_ray.circuits.plain_numbers import _finite_number, whole_number

SlotKind = Literal["input", "weight"]


class Term(NamedTuple):
    """Part of an angle: factor * the number of one slot.

    Attributes:
        kind: "input" or "weight".
        slot: its number among those of its kind, from 0.
        factor: finite; radians per unit of the slot.
    """

    kind: SlotKind
    slot: int
    factor: float


@dataclass(frozen=True, slots=True)
class Angle:
    """Angle that is affine in slots: offset + sum of factor * slot, in radians.

    Angles are added to and subtracted from angles and numbers, and multiplied with and divided by numbers; `inputs` and
    `weights` make the first ones. Equal angles compare equal: terms are merged, sorted (inputs first), and dropped
    where their factor is 0.

    Attributes:
        offset: finite, in radians; default 0.
        terms: `Term`s, or tuples (kind, slot, factor).

    Raises:
        ValueError: an unknown kind, a slot below 0, or a number that is not finite.

    Example:
        >>> (x,), (w,) = inputs(1), weights(1)
        >>> 2 * x + w / 4 - 1
        Angle(offset=-1.0, terms=(Term(kind='input', slot=0, factor=2.0), Term(kind='weight', slot=0, factor=0.25)))
    """

    offset: float = 0.0
    terms: tuple[Term, ...] = ()

    __array_ufunc__ = None  # numpy's numbers leave `number * angle` to the angle

    def __post_init__(self) -> None:
        factors: dict[tuple[SlotKind, int], float] = {}
        for kind, slot, factor in self.terms:
            if kind not in get_args(SlotKind):
                raise ValueError(f"Angle.terms: got kind {kind!r}; allowed: {', '.join(get_args(SlotKind))}")
            key = kind, whole_number("Angle.terms: slot", slot, 0)
            factors[key] = factors.get(key, 0.0) + _finite_number("Angle.terms: factor", factor)
        terms = (Term(*key, _finite_number("Angle.terms: factor", factors[key])) for key in sorted(factors))
        object.__setattr__(self, "offset", _finite_number("Angle.offset", self.offset))
        object.__setattr__(self, "terms", tuple(term for term in terms if term.factor))

    def __add__(self, other: Any) -> Angle:
        """Return the sum of two angles, or of an angle and a number."""
        other = _as_angle("Angle: + number", other)
        return Angle(self.offset + other.offset, self.terms + other.terms)

    def __mul__(self, number: Any) -> Angle:
        """Return the angle times a number; angles times angles would not be affine."""
        factor = _finite_number("Angle: * number", number)
        return Angle(self.offset * factor, tuple([Term(kind, slot, own * factor) for kind, slot, own in self.terms]))

    def __truediv__(self, number: Any) -> Angle:
        """Return the angle divided by a number other than 0."""
        divisor = _finite_number("Angle: / number", number)
        if not divisor:
            raise ValueError("Angle: / number: got 0; allowed: any other finite number")
        return Angle(self.offset / divisor, tuple([Term(kind, slot, own / divisor) for kind, slot, own in self.terms]))

    def __neg__(self) -> Angle:
        """Return the angle of the other direction."""
        return self * -1

    def __sub__(self, other: Any) -> Angle:
        """Return the difference."""
        return self + -other

    def __rsub__(self, other: Any) -> Angle:
        """Return a number minus this angle."""
        return -self + other

    __radd__, __rmul__ = __add__, __mul__


def _as_angle(field: str, value: Any) -> Angle:
    """Return a number of radians as an angle without slots, and an angle as it is.

    Args:
        field: name of the argument, for the message.
        value: an `Angle` or a number.

    Raises:
        ValueError: neither, or not finite.
    """
    return value if isinstance(value, Angle) else Angle(_finite_number(field, value))


def inputs(n: int) -> tuple[Angle, ...]:
    """Return n angles, one for each input slot 0 to n - 1: the numbers of a sample."""
    return tuple(Angle(0.0, (Term("input", slot, 1.0),)) for slot in range(whole_number("inputs", n, 0)))


def weights(n: int) -> tuple[Angle, ...]:
    """Return n angles, one for each weight slot 0 to n - 1: the numbers that a training learns."""
    return tuple(Angle(0.0, (Term("weight", slot, 1.0),)) for slot in range(whole_number("weights", n, 0)))
