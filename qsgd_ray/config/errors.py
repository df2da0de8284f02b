"""Bad input, told in one line: which field, what came, what is allowed.

In: what pydantic found wrong. Out: a `StudyError`, or its one line.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from qsgd_ray.config.workload import KINDS


class StudyError(ValueError):
    """Bad input, told in one line: which field, what came, what is allowed."""


def one_line(error: ValidationError, tree: Any = None) -> str:
    """The first thing wrong in one line: field, what came, what is allowed; and how many more there are.

    `tree`: the data that was refused; list items with a name are then called by it.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    place = _place(first["loc"], tree)
    if error.title not in ("Study", "Limits"):
        place = f"{error.title}.{place}".rstrip(".")
    came = first["input"]
    if first["type"] == "allowed" and not first["loc"]:
        return f"{place}: {first['msg']}".removeprefix(": ")
    if first["type"] == "missing":
        told = "got nothing; allowed: a value, this field is required"
    elif first["type"] == "extra_forbidden":
        told = f"got {came!r}; allowed: no field of this name"
    elif isinstance(came, int | float | str | bool | None):
        told = f"got {came!r}; allowed: {_allowed(first['msg'])}"
    elif first["type"] == "allowed":
        told = f"allowed: {first['msg']}"
    else:
        told = f"got {came!r}; allowed: {_allowed(first['msg'])}"
    return f"{place}: {told}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _place(location: tuple[str | int, ...], tree: Any) -> str:
    if location[:1] == ("workload",) and location[1:2] and location[1] in KINDS:
        location = ("workload", *location[2:])  # pydantic names there which kind of task it took it for
    words = []
    for part in location:
        tree = tree[part] if isinstance(tree, dict) and part in tree else tree
        if isinstance(part, int) and isinstance(tree, list) and part < len(tree):
            tree = tree[part]
            part = tree.get("name", part) if isinstance(tree, dict) else part
        words.append(str(part))
    return ".".join(words)


def _allowed(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("Value error, ")
