"""Refusals of stored files: what lies there and what is wrong with it in, one printable line of bounded length out."""

from __future__ import annotations

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import printable

# Of a line of 300 characters, `qsgd-ray: ` included; the place has what the others leave.
_MOST = 290
_MOST_OF_A_PROBLEM = 100
_MOST_OF_ALLOWED = 70


def shown(value: object, limit: int) -> str:
    """Return the text of a value as a message may show it: on one line, printable, cut in its middle.

    Args:
        value: anything; what it says may come from a file of unknown origin.
        limit: the most characters, >= 10.

    Example:
        >>> shown("a\\nb\\x1b[31m", 100)
        'a b\\\\x1b[31m'
        >>> shown("x" * 100, 11)
        'xxx ... xxx'
    """
    text = _on_one_line(str(value), limit)
    if len(text) <= limit:
        return text
    end = (limit - 5) // 2
    return f"{text[: limit - 5 - end]} ... {text[-end:]}"


def _on_one_line(text: str, limit: int) -> str:
    """Return a text on one line, every character printable; of one much longer than `limit`, its ends."""
    if len(text) > 8 * limit:
        text = f"{text[: 4 * limit]} {text[-4 * limit :]}"
    return printable(" ".join(text.split()))


def refused(place: object, problem: object, allowed: str, option: str = "DIR") -> StudyError:
    """Return the error for something stored that cannot be used; its text has at most 300 characters.

    Args:
        place: the path or URI of the file or folder.
        problem: what is wrong, as it goes on after the place: "whose number is null", "which is a link".
        allowed: what would be right.
        option: the argument of the command that led there.
    """
    rest = f", {shown(problem, _MOST_OF_A_PROBLEM)}; allowed: {shown(allowed, _MOST_OF_ALLOWED)}"
    room = _MOST - len(f"{option}: got {rest}")
    where = _on_one_line(str(place), room)
    if len(where) > room:  # a file's name stands at the end
        where = f"...{where[3 - room :]}"
    return StudyError(f"{option}: got {where}{rest}")
