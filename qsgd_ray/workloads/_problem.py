"""A word problem and its final number: text comes in, the number after `####` goes out in one way of writing it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = "####"
# As in GSM8K's answers, and as models write it: -1,234.50 with or without $, a unit or a period behind it. A fraction
# or a power is another number than its first digits.
_MARKED = re.compile(
    rf"{MARK}\s*(?P<sign>-?)\s*[$€£]?\s*(?P<sign2>-?)(?P<whole>\d[\d,]*|(?=\.\d))(?P<rest>\.\d+)?(?![\d/^])"
)


@dataclass(frozen=True)
class Problem:
    """`worked`: the answer step by step, whose last line is `#### number`; `number` as `final_number` writes it."""

    question: str
    worked: str
    number: str


def final_number(text: str) -> str | None:
    """The number behind the first `####` that has one, e.g. "-1234.5" for "#### $-1,234.50."; None: there is none.

    Equal numbers are equal texts, whatever the number of their digits.
    """
    found = _MARKED.search(text)
    if found is None:
        return None
    whole = found["whole"].replace(",", "").lstrip("0") or "0"
    number = whole + (found["rest"] or "").rstrip("0").rstrip(".")
    return number if number == "0" or not (found["sign"] or found["sign2"]) else f"-{number}"


def question_key(question: str) -> str:
    """What two questions share that differ in nothing but spaces and capitals."""
    return " ".join(question.split()).casefold()
