"""Bad input in one line: the field, the value that came and the values that are allowed.

`StudyError` is the error that users see, and `InvalidSettings` the one that a wrong `Arm(...)` or `Study(...)` raises.
`validation_message` puts what pydantic found into words; `one_line` brings the text of any error to one line, and
`printable` escapes what a terminal would obey.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from qsgd_ray.config._problems import REFUSED, TASK_KINDS, error_details

# Characters of a message, and of one value in it.
_LONGEST_MESSAGE = 300
_LONGEST_VALUE = 80
# Words that pydantic puts into the location of a value of a union: its branch.
_BRANCH = re.compile(r"\[|^(function|constrained)-|^(int|float|bool|str|LogUniform|Uniform|Choice|Optimizer|Groups)$")


class StudyError(ValueError):
    """Bad input, told in one line of at most 300 characters: which field, what came, what is allowed."""

    def __init__(self, message: object = "") -> None:
        super().__init__(_shortened(str(message), _LONGEST_MESSAGE))


def printable(text: str) -> str:
    """Return a text with its unprintable characters escaped, line ends too.

    Control characters move a cursor, others turn the direction of writing, and half a surrogate pair cannot be sent.

    Example:
        >>> printable("a\\nb\\x1b[31m")
        'a\\\\nb\\\\x1b[31m'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _shortened(text: str, limit: int) -> str:
    """Return a text in one line of printable characters, cut in its middle where it is longer than the limit.

    Args:
        text: any text.
        limit: the most characters, at least 40.

    Example:
        >>> _shortened("a" * 10_000, 40)
        'aaaaaaaa ... (10,000 characters) ... aaa'
    """
    text = printable(text)
    if len(text) <= limit:
        return text
    gap = f" ... ({len(text):,} characters) ... "
    kept = limit - len(gap)
    return text[: kept - kept // 3] + gap + text[len(text) - kept // 3 :]


def _shown(value: Any) -> str:
    """Return a value as an error shows it: its `repr`, cut in the middle where that is long."""
    if isinstance(value, int) and value.bit_length() > 1000:  # Python itself refuses to write one of 4,300 digits
        return f"a number of about {int(value.bit_length() * 0.30103):,} digits"
    if isinstance(value, str) and len(value) > _LONGEST_VALUE:
        value = _shortened(value, _LONGEST_VALUE)
    try:
        return _shortened(repr(value), _LONGEST_VALUE + 20)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"


class InvalidSettings(StudyError, ValidationError):
    """Settings that cannot be constructed, in one line.

    A `StudyError` for users, and still the `ValidationError` that pydantic promises: `title` and `errors()` are there.
    Raised by a direct construction. Studies that are read from JSON or changed by `--set` raise a plain `StudyError`.

    Example:
        >>> from qsgd_ray.config import Arm
        >>> Arm(name="sine", weight_decay=-1)
        Traceback (most recent call last):
            ...
        qsgd_ray.config.errors.InvalidSettings: Arm.weight_decay: got -1; allowed: a number >= 0, or a space of such
    """

    fields: tuple[str, ...] = ()  # of the class that was to be constructed

    def __init__(self, *parts: object) -> None:
        ValueError.__init__(self, *parts)  # pydantic's own, from `from_exception_data`

    @classmethod
    def of(cls, error: ValidationError, fields: Iterable[str] = ()) -> InvalidSettings:
        """Return the problems of pydantic's error as an error of this class.

        Args:
            error: of the construction of a settings class.
            fields: names of the fields of that class; a misspelt one is answered with them.
        """
        return _restored(error.title, error.errors(include_url=False), tuple(fields))

    def __str__(self) -> str:
        return _shortened(validation_message(self), _LONGEST_MESSAGE)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Callable[..., InvalidSettings], tuple[str, Sequence[Any], tuple[str, ...]]]:
        # pydantic restores no error of a type that is not its own (2.14).
        return _restored, (self.title, self.errors(include_url=False), self.fields)


def _restored(title: str, problems: Sequence[Any], fields: tuple[str, ...]) -> InvalidSettings:
    error = InvalidSettings.from_exception_data(title, error_details(problems))
    error.fields = fields
    return error


def validation_message(error: ValidationError, tree: Any = None) -> str:
    """Return the first problem of a validation in one line, and the number of the others.

    Args:
        error: pydantic's error of a settings class. Fields of `Study` and `Limits` go by their path alone, fields of
            other classes by class and path.
        tree: the JSON data that was refused. List items in it that have a name are called by their name, not by their
            index. None: all go by their index.

    Returns:
        `PATH: got VALUE; allowed: VALUES (and N more)`.
    """
    problems = error.errors(include_url=False)
    # A misspelt field that is required is missing as well: what was written tells more than what was not.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden" and problems[0]["type"] == "missing")
    path = _path(first["loc"], tree)
    if error.title not in ("Study", "Limits"):
        path = f"{error.title}.{path}".rstrip(".")
    value = first["input"]
    if first["type"] == REFUSED and not first["loc"]:
        return f"{path}: {first['msg']}".removeprefix(": ")
    if first["type"] == "missing":
        reason = "got nothing; allowed: a value, this field is required"
    elif first["type"] == "extra_forbidden":
        reason = f"got {_shown(value)}; allowed: no field of this name"
        if isinstance(error, InvalidSettings) and error.fields and len(first["loc"]) == 1:
            reason += f"; there are {', '.join(error.fields)}"
    elif first["type"] == REFUSED and not isinstance(value, int | float | str | bool | None):
        reason = f"allowed: {first['msg']}"  # it was an object, and would be long
    else:
        reason = f"got {_shown(value)}; allowed: {_allowed(first['msg'])}"
    return f"{path}: {reason}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _path(location: tuple[str | int, ...], tree: Any) -> str:
    if location[:1] == ("workload",) and location[1:2] and location[1] in TASK_KINDS:
        location = ("workload", *location[2:])
    if location[:1] == ("workloads",) and location[2:3] and location[2] in TASK_KINDS:
        location = (*location[:2], *location[3:])
    words: list[str] = []
    for part in location:
        if isinstance(part, str) and _BRANCH.search(part):
            continue
        tree = tree[part] if isinstance(tree, dict) and part in tree else tree
        if isinstance(part, int) and isinstance(tree, list) and part < len(tree):
            tree = tree[part]
            part = tree.get("name", part) if isinstance(tree, dict) else part
        words.append(_shortened(str(part), 60))
    return _shortened(".".join(words), 120)


def _allowed(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def one_line(
    error: BaseException | object, *, part: Literal["all", "first", "last"] = "all", limit: int | None = None
) -> str:
    """Return the text of an error, or any text, as one line.

    Args:
        error: an exception, or what another program said.
        part: `all` joins the lines, every run of white space being one space. `first` and `last` return that line of
            those that are not blank: of long texts the first often says what failed, Ray's last says why.
        limit: the most characters; what is longer is cut and ends in " ...". None: no limit.

    Returns:
        The line. An exception without a text goes by the name of its class where a part is asked for.
    """
    text = str(error).strip()
    if part == "all":
        text = " ".join(text.split())
    elif text:
        text = text.splitlines()[0 if part == "first" else -1].strip()
    elif isinstance(error, BaseException):
        text = type(error).__name__
    return text if limit is None or len(text) <= limit else f"{text[:limit]} ..."
