"""The command `qsgd-ray report`: a study's folder in; its page and, on the terminal, its verdicts out."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from qsgd_ray.config import StudyError
from qsgd_ray.storage import Folder, Storage, StorageError, storage_at


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
            print_report(storage, Console(), storage_at(limits, "--limits") if limits else None)
    except StorageError as error:
        raise StudyError(
            f"DIR: got {storage}; allowed: a study's results that can be read and written ({error})"
        ) from None


def print_report(storage: Storage, console: Console, limits: Storage | None = None) -> None:
    """Write a study's page into its place, and print its tables and verdicts.

    Args:
        storage: the study's results.
        console: where the tables and verdicts are printed.
        limits: a study of limits for the page's section on scaling; default: the newest one beside the study.

    Raises:
        StudyError: there is no study, or its folder cannot be written.
        StorageError: an object store cannot be read or written.
    """
    from qsgd_ray.analysis.study_analysis import analyse
    from qsgd_ray.reporting.page import write_report
    from qsgd_ray.reporting.terminal import study_report
    from qsgd_ray.results import Results

    results = Results(storage)
    results.pack()
    analysis = analyse(results.tables())
    try:
        page = write_report(storage, analysis, _scaling(storage, limits))
    except StorageError:
        raise
    except OSError as error:
        raise StudyError(
            f"DIR: got {storage}; allowed: a folder in which report.html can be written ({error})"
        ) from None
    for part in study_report(analysis):
        console.print(part)
    for note in analysis.notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _scaling(storage: Storage, limits: Storage | None) -> dict[str, Any] | None:
    """Return the section of the limits given, or of the newest beside a study in a folder, which may be unreadable."""
    from qsgd_ray.limits.page import section
    from qsgd_ray.limits.rows import LimitsResults

    if limits is not None:
        return section(LimitsResults(limits), _link(storage, limits))
    if not isinstance(storage, Folder):
        return None
    beside = sorted(storage.path.resolve().parent.glob("*/limits.json"), key=lambda file: file.stat().st_mtime)
    if not beside:
        return None
    newest = storage_at(beside[-1].parent)
    with suppress(StudyError, StorageError):
        return section(LimitsResults(newest), _link(storage, newest))
    return None


def _link(storage: Storage, limits: Storage) -> str:
    """Return the link from the page of a study to that of the limits: relative where both are folders."""
    if isinstance(storage, Folder) and isinstance(limits, Folder):
        return os.path.relpath(limits.path.resolve() / "limits.html", storage.path.resolve())
    return str(limits.location("limits.html"))
