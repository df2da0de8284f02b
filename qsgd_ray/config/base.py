"""Spaces: ranges and choices that stand in place of a searched field's value."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from qsgd_ray.config._numbers import MOST_ITEMS, Flag, Number, Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class _Range(Settings):
    low: Real
    high: Real

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise refusal("low < high")
        return self

    def edges(self) -> tuple[float, ...]:
        """Return the values that must be allowed for every value of the space to be: both ends."""
        return (self.low, self.high)


class LogUniform(_Range):
    """Space of positive numbers, uniform in their logarithm.

    Attributes:
        low: the smallest value, > 0.
        high: the largest value, > low.

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


class Choice(Settings):
    """Space of a few numbers, of a few words, or of a switch.

    Attributes:
        options: the values, at least one; all numbers, all words, or True and False.

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
Point = dict[str, int | float | str]


def options(value: Any) -> tuple[Any, ...]:
    """Return the values that a field may take: the options of a `Choice`, or the one value."""
    return value.options if isinstance(value, Choice) else (value,)
