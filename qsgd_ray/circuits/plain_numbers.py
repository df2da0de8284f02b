"""Numbers as arguments: those of Python and of numpy are taken and become Python's; whole ones are checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def whole_number(field: str, value: Any, least: int | None = None, below: int | None = None) -> int:
    """Return a whole number as Python's int.

    Args:
        field: name of the argument, for the message.
        value: what came; True and 3.0 are no whole numbers.
        least: the smallest that is allowed; None: any.
        below: one past the largest that is allowed, a power of two; None: any.

    Returns:
        The same number.

    Raises:
        ValueError: in one line: another type, or out of range.

    Example:
        >>> whole_number("shots", np.int64(3), 1)
        3
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if whole and (least is None or value >= least) and (below is None or value < below):
        return int(value)
    allowed = "a whole number"
    if least is not None and below is not None:
        allowed += f" from {least} to 2**{below.bit_length() - 1} - 1"
    elif least is not None:
        allowed += f" >= {least}"
    raise ValueError(f"{field}: got {repr(value)[:100]}; allowed: {allowed}")


def whole_number_or_none(field: str, value: Any, least: int) -> int | None:
    """Return a whole number as Python's int, and None as it is.

    Args:
        field: name of the argument, for the message.
        value: what came.
        least: the smallest number that is allowed.

    Raises:
        ValueError: in one line: neither.
    """
    if value is None:
        return None
    try:
        return whole_number(field, value, least)
    except ValueError as error:
        raise ValueError(f"{error}, or None") from None


def _finite_number(field: str, value: Any) -> float:
    """Return a finite real number as Python's float.

    Args:
        field: name of the argument, for the message.
        value: what came; True is no number.

    Raises:
        ValueError: in one line: another type, infinite or nan.
    """
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if real and math.isfinite(value):
        return float(value)
    raise ValueError(f"{field}: got {repr(value)[:100]}; allowed: a finite number")


def plain(value: Any) -> Any:
    """Return a number of numpy as Python's, a list or an array as a tuple of such, and anything else as it is."""
    if isinstance(value, np.ndarray | list | tuple):
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value
