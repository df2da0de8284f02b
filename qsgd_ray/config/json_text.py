"""JSON of unknown origin: a text in; a tree of bounded size and depth out, or one line on why there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from qsgd_ray.config.errors import StudyError, _shown

_MOST_BYTES = 64 * 2**20
# No settings and no stored file of this package are nested deeper, and recursive functions end at a thousand.
_DEEPEST = 64
# Beyond any number of a study, and far below the length that Python refuses to read or print.
_MOST_DIGITS = 400
_TOO_LARGE = 10**_MOST_DIGITS


class _UnusableJsonError(ValueError):
    """JSON that is larger or deeper than any that can be used; its text says in what."""


def parse_json(text: str | bytes) -> Any:
    """Return the tree of a JSON text.

    Args:
        text: JSON as RFC 8259 has it, so without NaN and Infinity; UTF-8 where it comes as bytes.

    Returns:
        Nested dicts, lists and plain values that can be printed, stored as UTF-8 and walked by recursion.

    Raises:
        ValueError: it is no JSON; or it is larger or deeper, or has longer whole numbers, than any that this package
            writes, or text with half of a surrogate pair. One line.

    Example:
        >>> parse_json("[1, 2.5]")
        [1, 2.5]
        >>> parse_json("[" * 100 + "]" * 100)
        Traceback (most recent call last):
            ...
        qsgd_ray.config.json_text._UnusableJsonError: JSON nested deeper than 64
    """
    if len(text) > _MOST_BYTES:
        raise _UnusableJsonError(f"{len(text):,} bytes, of {_MOST_BYTES:,} at most")
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        tree = json.loads(decoded, parse_constant=_refuse_constant, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _UnusableJsonError(f"JSON nested deeper than {_DEEPEST}") from None
    for _, reason in _problems(tree):
        raise _UnusableJsonError(reason)
    return tree


def _require_usable(tree: Any) -> None:
    """Raise `StudyError`, one line with the path, where plain values cannot be written as JSON and read as settings.

    Args:
        tree: nested dicts and lists.
    """
    for path, reason in _problems(tree):
        place = ".".join(map(str, path[:3])) or "study"
        raise StudyError(f"{place}: got {reason}; allowed: plain values in at most {_DEEPEST} levels")


def _problems(tree: Any) -> Iterator[tuple[list[Any], str]]:
    """Yield the keys to each value that is too deep, too large or no text, and the reason; without recursion."""
    # A place is its parent's place and its key there: paths are seldom wanted. The tree itself is the item of a list.
    waiting: list[tuple[Any, Any, int]] = [(None, [tree], 0)]
    while waiting:
        place, branch, depth = waiting.pop()
        if depth > _DEEPEST:
            yield _keys(place), f"JSON nested deeper than {_DEEPEST}"
            continue
        named = isinstance(branch, dict)
        for key, value in branch.items() if named else enumerate(branch):
            if named and isinstance(key, str) and not _is_text(key):
                yield _keys(place), f"the name {_shown(key)}, which is no UTF-8 text"
            if isinstance(value, str):
                if not _is_text(value):
                    yield _keys((place, key)), f"{_shown(value)}, which is no UTF-8 text"
            elif isinstance(value, int):
                if not -_TOO_LARGE < value < _TOO_LARGE:
                    yield _keys((place, key)), _shown(value)
            elif isinstance(value, dict | list | tuple):
                waiting.append(((place, key), value, depth + 1))


def _keys(place: Any) -> list[Any]:
    keys = []
    while place is not None:
        place, key = place
        keys.append(key)
    return keys[-2::-1]  # without the tree's own


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > _MOST_DIGITS:
        raise _UnusableJsonError(f"a number of {len(digits.lstrip('-')):,} digits")
    return int(digits)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
