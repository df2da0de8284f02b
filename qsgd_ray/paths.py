"""A tree of JSON as its leaves: nested dicts and lists in, (dotted path, value) pairs out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """In their order; a list of plain values is a value, and so is whatever is empty.

    Items of other lists go by their name, where they have one, so that an item more is not every item else.
    """
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        for index, item in enumerate(tree):
            name = item.get("name", index) if isinstance(item, dict) else index
            yield from leaves(item, f"{path}.{name}".lstrip("."))
    else:
        yield path, tree
