"""JSON of unknown origin: bytes in; a tree of bounded size and depth that can be printed, stored and walked out."""

from __future__ import annotations

import json
from typing import Any

_MOST_BYTES = 64 * 2**20
_MOST_DEPTH = 64
# Python refuses to print an integer of more than 4,300 digits, and JSON's own readers stop much earlier.
_MOST_DIGITS = 1000


def parse_json(content: bytes | str) -> Any:
    """Return the tree of a JSON text.

    Args:
        content: the text, as UTF-8 where it comes as bytes.

    Returns:
        Nested dicts, lists and plain values, at most `_MOST_DEPTH` levels deep.

    Raises:
        ValueError: it is no JSON, or larger, deeper or with longer numbers than any that this package writes; one line.

    Example:
        >>> parse_json("[1, {}]")
        [1, {}]
        >>> parse_json("[" * 100 + "]" * 100)
        Traceback (most recent call last):
            ...
        ValueError: lists or objects more than 64 levels deep
    """
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{len(content):,} bytes, of {_MOST_BYTES:,} at most")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        tree = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    _check(tree)
    return tree


def _too_deep() -> str:
    return f"lists or objects more than {_MOST_DEPTH} levels deep"


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits, of {_MOST_DIGITS:,} at most")
    return int(digits)


def _check(tree: Any) -> None:
    """Raise ValueError for a tree that is too deep, or has text that no file can hold."""
    level = [tree]
    for _ in range(_MOST_DEPTH + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
                texts = [*value]
            else:
                texts = [value] if isinstance(value, str) else []
                below += value if isinstance(value, list) else ()
            for text in texts:
                if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                    raise ValueError("text with half of a surrogate pair")
        if not below:
            return
        level = below
    raise ValueError(_too_deep())
