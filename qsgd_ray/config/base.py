"""Where a searched field may lie: a value, or a space in its place; one message for all that can be wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from qsgd_ray.config.errors import invalid_settings, refusal

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class Frozen(BaseModel):
    """Base of all settings: immutable, checked when constructed, without unknown fields.

    A wrong value raises `InvalidSettings` with its one line, without pydantic's text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise invalid_settings(error) from None

    # Else pydantic would call it for settings within others too, and their errors would lose the path to them.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class _Range(Frozen):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise refusal("low < high")
        return self

    def edges(self) -> tuple[float, ...]:
        return (self.low, self.high)


class LogUniform(_Range):
    """A positive number, uniform in its logarithm, from `low` to `high`."""

    kind: Literal["log_uniform"] = "log_uniform"
    low: float = Field(gt=0)


class Uniform(_Range):
    """A number, uniform from `low` to `high`."""

    kind: Literal["uniform"] = "uniform"


class Choice(Frozen):
    """One of a few numbers, or of a few words."""

    kind: Literal["choice"] = "choice"
    options: tuple[int | float, ...] | tuple[str, ...] = Field(min_length=1)

    def edges(self) -> tuple[float, ...] | tuple[str, ...]:
        return self.options


Space = LogUniform | Uniform | Choice
SPACES = (LogUniform, Uniform, Choice)
# A value for each searched field, by dotted path.
Point = dict[str, int | float | str]


def searchable(allowed: str, holds: Callable[[float], bool], *, whole: bool = False) -> WrapValidator:
    """A number for which `holds`, or a space whose every edge holds; one message for all that can be wrong."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            parsed = handler(value)
        except ValidationError:
            raise refusal(f"{allowed}, or a space of such") from None
        asked = parsed.edges() if isinstance(parsed, SPACES) else (parsed,)
        edges = [edge for edge in asked if not isinstance(edge, str)]
        if len(edges) < len(asked):
            raise refusal(f"{allowed}, or a space of such")
        if whole and (isinstance(parsed, LogUniform | Uniform) or any(edge != int(edge) for edge in edges)):
            raise refusal(f"{allowed}, or a Choice of such")
        if not all(holds(edge) for edge in edges):
            raise refusal(f"{allowed}, or a space of such")
        return parsed

    return WrapValidator(check)


def searchable_word(words: tuple[str, ...]) -> WrapValidator:
    """One of `words`, or a Choice of some of them."""
    *others, last = (repr(word) for word in words)

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            parsed = handler(value)
        except ValidationError:
            parsed = None
        asked = parsed.options if isinstance(parsed, Choice) else (parsed,)
        if any(word not in words for word in asked):
            raise refusal(f"{', '.join(others)} or {last}, or a Choice of such")
        return parsed

    return WrapValidator(check)


def options(value: Any) -> tuple[Any, ...]:
    """What a field that holds a word or a Choice may come to."""
    return value.options if isinstance(value, Choice) else (value,)
