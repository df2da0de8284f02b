"""Options of commands for other programs: a verdict as text on standard output, and the exit code that it sets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from qsgd_ray.config import StudyError

FORMAT_HELP = "Print json, csv, markdown or latex in place of the tables."
FAIL_HELP = "Exit code 3 where an arm is worse; inconclusive: where one is worse or inconclusive."
_FAILED = 3
# The option of commands that print a table or its JSON.
JsonFormat = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="Print json in place of the table.", show_default=False)
]


def check_choice(option: str, value: str | None, allowed: Sequence[str]) -> None:
    """Raise StudyError, one line, where an option has a value that it cannot have; None is its default."""
    if value is not None and value not in allowed:
        raise StudyError(f"{option}: got {value!r}; allowed: {', '.join(allowed)}")


def check_machine_options(text_format: str | None, fail_on: str | None) -> None:
    """Raise StudyError, one line, where `--format` or `--fail-on` has a value that it cannot have."""
    from qsgd_ray.reporting.verdict_document import FAILURES
    from qsgd_ray.reporting.verdict_formats import FORMATS

    check_choice("--format", text_format, tuple(FORMATS))
    check_choice("--fail-on", fail_on, tuple(FAILURES))


def print_text(text: str) -> None:
    """Print a text for other programs on standard output: not wrapped, and without colours."""
    from qsgd_ray.reporting.console import plain_console

    plain_console().print(text, soft_wrap=True, highlight=False, markup=False, end="")


def exit_on_failure(document: Mapping[str, Any], fail_on: str | None) -> None:
    """Exit with code 3 where a verdict is one that `--fail-on` names; do nothing where that is None."""
    from qsgd_ray.reporting.verdict_document import is_failure

    if fail_on is not None and is_failure(document, fail_on):
        sys.stdout.flush()
        raise SystemExit(_FAILED)
