"""Types of an arm's fields that may be searched: a value, or a space in its place.

One message says all that can be wrong with either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from qsgd_ray.config._numbers import Real, Whole
from qsgd_ray.config._problems import refusal
from qsgd_ray.config.base import SPACES, Choice, LogUniform, Space, Uniform
from qsgd_ray.config.circuit import Entangle, entangle_by_name

Source = Literal["sine", "circuit", "sampled", "noisy", "zero", "gradient", "random_sign", "shuffled"]
Scope = Literal["model", "tensor", "all"]
Formula = Literal["adamw", "paper"]
Placement = Literal["update", "moments"]
Direction = Literal["gradient", "preconditioned"]
LambdaShape = Literal["constant", "linear", "cosine"]


def _number(allowed: str, holds: Callable[[float], bool], *, whole: bool = False) -> WrapValidator:
    """Return a validator of a number for which `holds`, or of a space whose edges all hold; `allowed` is the message.

    A `whole` number is no range: of a range, only a few values would be whole.
    """

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if whole and isinstance(value, float) and value.is_integer():
            value = int(value)  # of a Choice of numbers, some of which are written 2.0
        try:
            parsed = handler(value)
        except ValidationError:
            raise refusal(f"{allowed}, or a space of such") from None
        edges = parsed.values_to_check() if isinstance(parsed, SPACES) else (parsed,)
        numbers = [edge for edge in edges if not isinstance(edge, str | bool)]
        if len(numbers) < len(edges):
            raise refusal(f"{allowed}, or a space of such")
        if whole and (isinstance(parsed, LogUniform | Uniform) or any(number != int(number) for number in numbers)):
            raise refusal(f"{allowed}, or a Choice of such")
        if not all(holds(number) for number in numbers):
            raise refusal(f"{allowed}, or a space of such")
        return parsed

    return WrapValidator(check)


def _word(words: tuple[str, ...]) -> WrapValidator:
    """Return a validator of one of `words`, or of a Choice of some of them."""
    *others, last = (repr(word) for word in words)

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            parsed = handler(value)
        except ValidationError:
            parsed = None
        chosen = parsed.values_to_check() if isinstance(parsed, Choice) else (parsed,)
        if any(word not in words for word in chosen):
            raise refusal(f"{', '.join(others)} or {last}, or a Choice of such")
        return parsed

    return WrapValidator(check)


LearningRate = Annotated[Real | Space, _number("a number > 0", lambda x: x > 0)]
Share = Annotated[Real | Space, _number("a number in [0, 1)", lambda x: 0 <= x < 1)]
NonNegative = Annotated[Real | Space, _number("a number >= 0", lambda x: x >= 0)]
# What one machine can hold is checked where circuits run (execution/preflight.py): 30 qubits are a 16 GiB state, but
# shallow chains of thousands are none (circuits/chain/expectations.py).
_MAX_QUBITS = 4096
QubitCount = Annotated[
    Whole | Space, _number(f"a whole number from 1 to {_MAX_QUBITS}", lambda n: 1 <= n <= _MAX_QUBITS, whole=True)
]
Depth = Annotated[Whole | Space, _number("a whole number from 1 to 64", lambda n: 1 <= n <= 64, whole=True)]
SearchedSource = Annotated[Source | Choice, _word(get_args(Source))]
SearchedScope = Annotated[Scope | Choice, _word(get_args(Scope))]
SearchedFormula = Annotated[Formula | Choice, _word(get_args(Formula))]
SearchedPlacement = Annotated[Placement | Choice, _word(get_args(Placement))]
SearchedDirection = Annotated[Direction | Choice, _word(get_args(Direction))]
SearchedShape = Annotated[LambdaShape | Choice, _word(get_args(LambdaShape))]
SearchedEntangle = Annotated[Entangle | Choice, _word(get_args(Entangle)), BeforeValidator(entangle_by_name)]
