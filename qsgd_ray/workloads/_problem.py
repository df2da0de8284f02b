"""A word problem: its question, its worked answer and its final number."""

from __future__ import annotations

from dataclasses import dataclass


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


def question_key(question: str) -> str:
    """Return a key that is the same for questions that differ in nothing but spaces and capitals."""
    return " ".join(question.split()).casefold()
