"""Dotted paths into a tree of JSON: nested dicts and lists.

A path such as `arms.sine.perturbation.lambda_` names a value. Items of a list go by their name, where they are dicts
that have one, else by their index: one item more does not rename the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Leaf = tuple[str, Any]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


# Digits; Python reads no number of thousands.
_LONGEST_INDEX = 9
# In place of a value: there is none at this path.
MISSING = _Missing()


class PathError(KeyError):
    """A path that does not exist in a tree; its one argument is the path.

    Attributes:
        parent: the part of the path that exists, dotted; empty at the root.
        key: the word after it, which does not.
        branch: the value at `parent`.
    """

    def __init__(self, path: str, parent: str, key: str, branch: Any) -> None:
        super().__init__(path)
        self.parent, self.key, self.branch = parent, key, branch


def leaves(tree: Any, path: str = "", children: Callable[[Any], Iterable[Leaf] | None] | None = None) -> Iterator[Leaf]:
    """Yield every leaf of a tree with its path, in the tree's order.

    Args:
        tree: nested dicts and lists. A list of plain values is a leaf, and so is everything that is empty.
        path: the path of `tree` itself, which all others begin with.
        children: function that returns the names and values inside a value, None for a leaf. None: dicts and
            lists have children.

    Example:
        >>> list(leaves({"arms": [{"name": "sine", "lr": 1}], "seeds": [1, 2]}))
        [('arms.sine.name', 'sine'), ('arms.sine.lr', 1), ('seeds', [1, 2])]
    """
    inside = (children or _json_children)(tree)
    if inside is None:
        yield path, tree
    else:
        for name, value in inside:
            yield from leaves(value, _joined(path, name), children)


def _json_children(tree: Any) -> list[Leaf] | None:
    """Return the names and values inside a dict, or a list of dicts or lists; None for any other value."""
    if isinstance(tree, dict) and tree:
        return list(tree.items())
    if isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        named = (item.get("name", index) if isinstance(item, dict) else index for index, item in enumerate(tree))
        return [(str(name), item) for name, item in zip(named, tree, strict=True)]
    return None


def _joined(*words: Any) -> str:
    """Return the path of these words or paths; empty ones are left out."""
    return ".".join(str(word) for word in words if word != "")


def value_at(tree: Any, path: str) -> Any:
    """Return the value at a path; `PathError` where it does not exist.

    Args:
        tree: nested dicts and lists.
        path: words between dots; an item of a list by its name or its index.

    Example:
        >>> value_at({"arms": [{"name": "sine", "lr": 1}]}, "arms.sine.lr")
        1
    """
    branch, key = _branch_and_key(tree, path)
    return branch[key]


def set_value(tree: Any, path: str, value: Any) -> None:
    """Set the value at a path that exists, in place; `PathError` where it does not.

    Args:
        tree: nested dicts and lists, which are changed.
        path: words between dots; an item of a list by its name or its index.
        value: takes the place of what is there.
    """
    branch, key = _branch_and_key(tree, path)
    branch[key] = value


def remove_value(tree: Any, path: str) -> None:
    """Remove the value at a path that exists, in place; `PathError` where it does not.

    Args:
        tree: nested dicts and lists, which are changed.
        path: words between dots; an item of a list by its name or its index.

    Example:
        >>> tree = {"arms": [{"name": "sine", "lr": 1}]}
        >>> remove_value(tree, "arms.sine.lr")
        >>> tree
        {'arms': [{'name': 'sine'}]}
    """
    branch, key = _branch_and_key(tree, path)
    del branch[key]


def _branch_and_key(tree: Any, path: str) -> tuple[Any, str | int]:
    branch, parent = tree, ""
    *parents, last = path.split(".")
    for word in parents:
        branch, parent = branch[_key(branch, word, parent, path)], _joined(parent, word)
    return branch, _key(branch, last, parent, path)


def _key(branch: Any, word: str, parent: str, path: str) -> str | int:
    if isinstance(branch, dict) and word in branch:
        return word
    if isinstance(branch, list):
        names = item_names(branch)
        if word in names:
            return names.index(word)
        if word.isdecimal() and len(word) <= _LONGEST_INDEX and int(word) < len(branch):
            return int(word)
    raise PathError(path, parent, word, branch)


def item_names(items: list[Any]) -> list[Any]:
    """Return the name of each item of a list; None for those without one."""
    return [item.get("name") if isinstance(item, dict) else None for item in items]


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each path at which two trees differ, with the old and the new value; `MISSING` where there is none.

    Args:
        old: nested dicts and lists. Lists whose items all have a name are compared name by name, and an empty list with
            one of these; others as a whole.
        new: the same.
        path: the path of both trees, which all others begin with.

    Example:
        >>> list(differences({"margin": 0.05, "seed": 0}, {"margin": 0.2, "seed": 0, "map": None}))
        [('margin', 0.05, 0.2), ('map', MISSING, None)]
    """
    old, new = _by_name(old), _by_name(new)
    if old == [] and isinstance(new, dict) and new:  # a list of named items that had none yet
        old = {}
    elif new == [] and isinstance(old, dict) and old:
        new = {}
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            place = _joined(path, key)
            if key in old and key in new:
                yield from differences(old[key], new[key], place)
            else:
                yield place, old.get(key, MISSING), new.get(key, MISSING)
    elif old != new:
        yield path, old, new


def _by_name(tree: Any) -> Any:
    """Return a list of named items as a dict; every other value, also a list with a name twice, as it is."""
    if not isinstance(tree, list) or not tree:
        return tree
    names = item_names(tree)
    distinct = all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    return dict(zip(names, tree, strict=True)) if distinct else tree
