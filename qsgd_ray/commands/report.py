"""The command `qsgd-ray report`: a study's folder in; its page and, on the terminal, its verdicts out."""

from __future__ import annotations

from typing import Annotated

import typer

from qsgd_ray.commands._machine_options import (
    FAIL_HELP,
    FORMAT_HELP,
    check_machine_options,
    exit_on_failure,
    print_text,
)
from qsgd_ray.commands._print_result import print_result
from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import StorageError, storage_at


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
    text_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help=FORMAT_HELP, show_default=False)
    ] = None,
    fail_on: Annotated[str | None, typer.Option(metavar="VERDICT", help=FAIL_HELP, show_default=False)] = None,
) -> None:
    """Write DIR/report.html and DIR/verdict.json, and print the verdict."""
    from qsgd_ray.limits.rows import LimitsResults, is_limits

    check_machine_options(text_format, fail_on)
    storage = storage_at(where, "DIR")
    try:
        if is_limits(storage):
            from qsgd_ray.limits.page import print_limits

            for option, value in (("--format", text_format), ("--fail-on", fail_on)):
                if value is not None:
                    raise StudyError(f"{option}: got {value!r}; allowed: none, as {storage} is a study of limits")
            print_limits(LimitsResults(storage), plain_console())
        else:
            from qsgd_ray.results import Results
            from qsgd_ray.results.whole import WholeResults, is_whole
            from qsgd_ray.study.reading import read_results

            for results in WholeResults(storage).parts.values() if is_whole(storage) else (Results(storage),):
                results.pack()
            result = read_results(storage)
            result.report(limits=limits)
            if text_format is None:
                print_result(result, plain_console())
            else:
                print_text(result.format(text_format))
            exit_on_failure(result.document, fail_on)
    except StorageError as error:
        if error.is_of_disk:
            raise
        raise StudyError(
            f"DIR: got {storage}; allowed: a study's results that can be read and written ({error})"
        ) from None
