"""Spaces: ranges and choices that stand in place of a searched field's value, and the condition of such a field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)

from qsgd_ray.config._numbers import MOST_ITEMS, Flag, Number, Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


Value = Flag | Number | Real | str
_MOST_CONDITIONS = 64
_Condition = Annotated[dict[str, Value | tuple[Value, ...]], Field(min_length=1, max_length=_MOST_CONDITIONS)]


class _Conditional(Settings):
    """A space that is searched under its condition alone.

    ConfigSpace, SMAC and irace call such a field conditional, and active where its condition holds; hence the name.
    """

    active_when: _Condition | None = None
    otherwise: Value | None = None

    @model_validator(mode="after")
    def _otherwise_of_a_condition(self) -> Self:
        if self.otherwise is not None and self.active_when is None:
            raise refusal(
                f"otherwise: with active_when, as the field is searched at every point; got {self.otherwise!r}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_no_condition(self, as_tree: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not set: a space without a condition is stored as it was before there were conditions."""
        tree: dict[str, Any] = as_tree(self)
        for name in ("active_when", "otherwise"):
            if getattr(self, name) is None:
                tree.pop(name, None)
        return tree

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        unset = {name for name in ("active_when", "otherwise") if getattr(self, name) is None}
        return ((name, value) for name, value in super().__repr_args__() if name not in unset)

    def edges(self) -> tuple[Any, ...]:
        """Return the values that must be allowed for every value of the space to be."""
        raise NotImplementedError

    def values_to_check(self) -> tuple[Any, ...]:
        """Return the edges, and the value where the field is not active."""
        return (*self.edges(), *(() if self.otherwise is None else (self.otherwise,)))


class _Range(_Conditional):
    low: Real
    high: Real

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise refusal(f"low < high; got {self.low:g} and {self.high:g}")
        return self

    def edges(self) -> tuple[float, ...]:
        """Return the values that must be allowed for every value of the space to be: both ends."""
        return (self.low, self.high)


class LogUniform(_Range):
    """Space of positive numbers, uniform in their logarithm.

    Attributes:
        low: the smallest value, > 0.
        high: the largest value, > low.
        active_when: values of other fields of the arm by dotted path, a value or several each; the field is searched
            where all of them hold. A field that is itself not active meets no condition. None: at every point.
        otherwise: value of the field where it is not active. None: it is left out, so that its default holds.

    Example:
        >>> from qsgd_ray.config import Arm
        >>> Arm(name="adamw", learning_rate=LogUniform(low=1e-4, high=1e-2)).spaces().keys()
        dict_keys(['learning_rate'])
    """

    kind: Literal["log_uniform"] = "log_uniform"
    low: Real = Field(gt=0)


class Uniform(_Range):
    """Space of numbers, uniform between its ends.

    Attributes:
        low: the smallest value.
        high: the largest value, > low.
        active_when: values of other fields of the arm by dotted path, a value or several each; the field is searched
            where all of them hold. A field that is itself not active meets no condition. None: at every point.
        otherwise: value of the field where it is not active. None: it is left out, so that its default holds.

    Example:
        >>> Uniform(low=0, high=1).edges()
        (0.0, 1.0)
    """

    kind: Literal["uniform"] = "uniform"


def _switch_or(options: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Return True and False as they are, never as 1 and 0."""
    if isinstance(options, list | tuple) and options and all(type(option) is bool for option in options[:MOST_ITEMS]):
        return tuple(dict.fromkeys(options))
    return handler(options)


def _as_they_are(options: tuple[Any, ...]) -> Any:
    """Return the options; pydantic's own writes True as 1 where it takes the first type of several that fits."""
    return options


class Choice(_Conditional):
    """Space of a few numbers, of a few words, or of a switch.

    Attributes:
        options: the values, at least one; all numbers, all words, or True and False.
        active_when: values of other fields of the arm by dotted path, a value or several each; the field is searched
            where all of them hold. A field that is itself not active meets no condition. None: at every point.
        otherwise: value of the field where it is not active. None: it is left out, so that its default holds.

    Example:
        >>> Choice(options=("sine", "circuit")).options
        ('sine', 'circuit')
    """

    kind: Literal["choice"] = "choice"
    options: Annotated[
        tuple[Number | Real, ...] | tuple[str, ...] | tuple[Flag, ...],
        Field(min_length=1, max_length=MOST_ITEMS),
        WrapValidator(_switch_or),
        PlainSerializer(_as_they_are),
    ]

    def edges(self) -> tuple[float, ...] | tuple[str, ...]:
        """Return the values that must be allowed for every value of the space to be: all of them."""
        return self.options


Space = LogUniform | Uniform | Choice
SPACES = (LogUniform, Uniform, Choice)
# A value for each searched field, by dotted path.
Point = dict[str, Value]


def options(value: Any) -> tuple[Any, ...]:
    """Return the values that a field may take: those of a `Choice`, or the one value."""
    return value.values_to_check() if isinstance(value, Choice) else (value,)


def _edge(space: Space, number: int) -> Any:
    """Return an edge of a space.

    Args:
        space: of a field.
        number: of the edge, from 0; after the last one the first one follows.
    """
    edges = space.edges()
    return edges[number % len(edges)]


def _same_value(one: Any, other: Any) -> bool:
    """Return True for equal values; True and 1 are none.

    Args:
        one: a plain value.
        other: a plain value.
    """
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def value_in(space: Space, value: Any) -> Any:
    """Return a value as the space writes it; None where it is outside.

    Args:
        space: where the value is to lie.
        value: of a range it becomes a float, of a choice it becomes the option.

    Example:
        >>> value_in(Uniform(low=0, high=2), 1), value_in(Choice(options=("a", "b")), "c")
        (1.0, None)
    """
    if isinstance(space, Choice):
        return next((option for option in space.options if _same_value(option, value)), None)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and space.low <= value <= space.high else None


def _fields(value: Any) -> list[tuple[str, Any]] | None:
    """Return the fields of settings or of a dict, or items of a tuple with spaces; None for a space and for others."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, tuple) and any(isinstance(item, SPACES) for item in value):
        return [(str(index), item) for index, item in enumerate(value)]
    return list(value) if isinstance(value, BaseModel) and not isinstance(value, SPACES) else None
