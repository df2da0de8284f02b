"""A word problem and its final number: text comes in, the number behind `####` goes out in one notation."""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "####"
# As in GSM8K's answers, and as models write it: -1,234.50 with or without $, a unit or a period behind it. A fraction
# or a power is not the number of its first digits.
_MARKED = re.compile(
    rf"{MARK}\s*(?P<sign>-?)\s*[$€£]?\s*(?P<sign2>-?)(?P<whole>\d[\d,]*|(?=\.\d))(?P<rest>\.\d+)?(?![\d/^])"
)


@dataclass(frozen=True)
class Problem:
    """A word problem.

    Attributes:
        question: its text.
        worked: the answer step by step; its last line is `#### number`.
        number: the final number, as `final_number` writes it.
    """

    question: str
    worked: str
    number: str


def final_number(text: str) -> str | None:
    """Return the number behind the first `####` that has one; None: there is none.

    Equal numbers are equal texts, whatever the number of their digits.

    Example:
        >>> final_number("#### $-1,234.50.")
        '-1234.5'
    """
    match = _MARKED.search(text)
    if match is None:
        return None
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    number = whole + (match["rest"] or "").rstrip("0").rstrip(".")
    return number if number == "0" or not (match["sign"] or match["sign2"]) else f"-{number}"


def question_key(question: str) -> str:
    """Return a key that is the same for questions that differ in nothing but spaces and capitals."""
    return " ".join(question.split()).casefold()
