"""JSON from outside: a text in; plain values out, or one line on why settings cannot be made of it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from qsgd_ray.config.errors import StudyError, _shown

# No settings are nested deeper, and recursive functions end at a thousand.
DEEPEST = 64
# Beyond any number of a study, and far below the length that Python refuses to read.
_MOST_DIGITS = 400


class UnusableJsonError(ValueError):
    """JSON of which no settings can be made; its text says why."""


def parse_json(text: str | bytes) -> Any:
    """Return the values of a JSON text.

    Args:
        text: JSON as RFC 8259 has it; NaN and Infinity are none.

    Raises:
        UnusableJsonError: it is nested deeper than `DEEPEST`, or has a number that is too long to be read.
        ValueError: it is no JSON.

    Example:
        >>> parse_json("[1, 2.5]")
        [1, 2.5]
    """
    try:
        tree = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole)
    except RecursionError:
        raise UnusableJsonError(f"JSON nested deeper than {DEEPEST}") from None
    _, reason = next(_problems(tree), ("", None))
    if reason is not None:
        raise UnusableJsonError(reason)
    return tree


def require_usable(tree: Any) -> None:
    """Raise `StudyError`, one line with the path, where plain values cannot be written as JSON and read as settings.

    Args:
        tree: nested dicts and lists.
    """
    for path, reason in _problems(tree):
        place = ".".join(path.split(".")[:3]) or "study"
        raise StudyError(f"{place}: got {reason}; allowed: plain values in at most {DEEPEST} levels")


def _problems(tree: Any) -> Any:
    """Yield path and reason of each value that is too deep, too long or no text; without recursion."""
    waiting = [("", tree, 1)]
    while waiting:
        path, value, depth = waiting.pop()
        if isinstance(value, dict | list | tuple):
            if depth > DEEPEST:
                yield path, f"JSON nested deeper than {DEEPEST}"
                continue
            items = list(value.items() if isinstance(value, dict) else enumerate(value))
            waiting += [(f"{path}.{key}".lstrip("."), item, depth + 1) for key, item in reversed(items)]
            for key, _ in items:
                if isinstance(key, str) and not _is_text(key):
                    yield path, f"the name {_shown(key)}, which is no UTF-8 text"
        elif isinstance(value, str) and not _is_text(value):
            yield path, f"{_shown(value)}, which is no UTF-8 text"
        elif isinstance(value, int) and value.bit_length() > 4 * _MOST_DIGITS:
            yield path, _shown(value)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise UnusableJsonError(f"a number of {len(digits):,} digits")
    return int(digits)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
