"""Chat templates, which come with a model and are programs: a tokenizer and turns come in, the chat's text goes out.

A template may raise, ask for a package, run for ever or write without end. Each of these is one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line

# Llama 3's template writes today's date into the system message; this is the date of its fallback.
DATE = "26 Jul 2024"
MOST_CHARACTERS = 1_000_000
# Lines of Python that a rendering may run, the first one's compilation with it: that of Llama 3 runs about 100,000.
MOST_STEPS = 10_000_000

_INSTEAD = "allowed: a model tuned to chat, e.g. meta-llama/Llama-3.2-1B-Instruct"


class _TooManySteps(Exception):
    """A template runs on and on."""


def render(tokenizer: Any, turns: list[dict[str, str]], *, for_generation: bool) -> str:
    """Render turns by the tokenizer's chat template.

    Args:
        tokenizer: a transformers tokenizer.
        turns: role and content of each.
        for_generation: True: end where the assistant's turn starts.

    Raises:
        StudyError: one line: there is no template, or it fails, gives no text, or does not end.
    """
    template = tokenizer.chat_template
    if not template:
        raise StudyError(f"model: got a tokenizer without a chat template; {_INSTEAD}")
    _require_size("has", len(str(template)))
    from jinja2 import TemplateError

    try:
        with _counted_steps():
            text = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=for_generation, date_string=DATE
            )
    except _TooManySteps:
        raise StudyError(f"model: got a chat template that runs on after {MOST_STEPS:,} steps; {_INSTEAD}") from None
    # What jinja raises, and what the operators and functions of Python raise inside of a template.
    except (
        *(TemplateError, ImportError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError),
        *(AssertionError, RuntimeError, MemoryError),
    ) as error:
        reason = f"{type(error).__name__}: {one_line(error, limit=120)}"
        raise StudyError(f"model: got a chat template that fails ({reason}); {_INSTEAD}") from None
    if not isinstance(text, str) or not text.strip():
        raise StudyError(f"model: got a chat template that gives no text; {_INSTEAD}")
    _require_size("gives", len(text))
    return text


def _require_size(verb: str, n_characters: int) -> None:
    if n_characters > MOST_CHARACTERS:
        raise StudyError(
            f"model: got a chat template that {verb} {n_characters:,} characters; allowed: at most {MOST_CHARACTERS:,}"
        )


@contextmanager
def _counted_steps() -> Iterator[None]:
    """Raise `_TooManySteps` where this thread runs more lines of Python than a template may.

    Lines, not seconds: the same on a busy machine. A timer's signal would reach the main thread alone.
    """
    n_steps = 0

    def step(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:  # noqa: ARG001
        nonlocal n_steps
        n_steps += 1
        if n_steps > MOST_STEPS:
            raise _TooManySteps
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        yield
    finally:
        sys.settrace(before)
