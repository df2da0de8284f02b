"""The command `qsgd-ray report`: a study's folder in; its page and, on the terminal, its verdicts out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qsgd_ray.config import StudyError
from qsgd_ray.storage import StorageError, storage_at

if TYPE_CHECKING:
    from qsgd_ray.study.result import StudyResult


def report(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's results: a folder or e.g. s3://BUCKET/PREFIX.")
    ],
    limits: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A study of limits, for the page's section on scaling. Default: the newest one beside DIR.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write DIR/report.html and print the verdict."""
    from qsgd_ray.limits.rows import LimitsResults, is_limits

    storage = storage_at(where, "DIR")
    try:
        if is_limits(storage):
            from qsgd_ray.limits.page import print_limits

            print_limits(LimitsResults(storage), Console())
        else:
            from qsgd_ray.results import Results
            from qsgd_ray.study.result import read_results

            Results(storage).pack()
            result = read_results(storage)
            result.report(limits=limits)
            print_result(result, Console())
    except StorageError as error:
        raise StudyError(
            f"DIR: got {storage}; allowed: a study's results that can be read and written ({error})"
        ) from None


def print_result(result: StudyResult, console: Console) -> None:
    """Print the tables and verdicts of a study, and where its page is.

    Args:
        result: the study's result; its page has been written.
        console: where to print.
    """
    from qsgd_ray.reporting.terminal import study_report

    for part in study_report(result.analysis):
        console.print(part)
    for note in result.analysis.notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {result.page}", soft_wrap=True, highlight=False)
