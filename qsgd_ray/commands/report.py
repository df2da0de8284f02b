"""`qsgd-ray report`: a study's folder in; its page and, on the terminal, its verdict out."""

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

    place = storage_at(where, "DIR")
    try:
        if is_limits(place):
            from qsgd_ray.limits.page import print_limits

            print_limits(LimitsResults(place), Console())
        else:
            print_report(place, Console(), storage_at(limits, "--limits") if limits else None)
    except StorageError as error:
        raise StudyError(
            f"DIR: got {place}; allowed: a study's results that can be read and written ({error})"
        ) from None


def print_report(place: Storage, console: Console, limits: Storage | None = None) -> None:
    """The page into its place; tables and verdict on `console`. `limits`: for its section on scaling."""
    from qsgd_ray.analysis.study_analysis import analyse
    from qsgd_ray.reporting.page import write_report
    from qsgd_ray.reporting.terminal import (
        claims_table,
        ladders_told,
        map_told,
        summary_table,
        throughput_table,
        verdict_table,
    )
    from qsgd_ray.results import Results

    results = Results(place)
    results.pack()
    analysis = analyse(results.tables())
    try:
        page = write_report(place, analysis, _scaling(place, limits))
    except StorageError:
        raise
    except OSError as error:
        raise StudyError(f"DIR: got {place}; allowed: a folder in which report.html can be written ({error})") from None
    console.print(summary_table(analysis))
    if analysis.study.workload.kind == "llm":
        console.print(throughput_table(analysis))
    console.print(verdict_table(analysis))
    if analysis.ladders:
        console.print(ladders_told(analysis.ladders), "")
    if analysis.claims:
        console.print(claims_table(analysis.claims))
    if analysis.effect_map is not None:
        console.print(map_told(analysis.effect_map), "")
    for note in analysis.notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _scaling(place: Storage, limits: Storage | None) -> dict[str, Any] | None:
    """The section of the limits asked for, or of the newest beside a study in a folder; what is only found there and
    cannot be read is left out."""
    from qsgd_ray.limits.page import section
    from qsgd_ray.limits.rows import LimitsResults

    if limits is not None:
        return section(LimitsResults(limits), _link(place, limits))
    if not isinstance(place, Folder):
        return None
    beside = sorted(place.path.resolve().parent.glob("*/limits.json"), key=lambda file: file.stat().st_mtime)
    if not beside:
        return None
    found = storage_at(beside[-1].parent)
    with suppress(StudyError, StorageError):
        return section(LimitsResults(found), _link(place, found))
    return None


def _link(place: Storage, limits: Storage) -> str:
    """To the page of the limits from that of the study: relative where both are folders."""
    if isinstance(place, Folder) and isinstance(limits, Folder):
        return os.path.relpath(limits.path.resolve() / "limits.html", place.path.resolve())
    return str(limits.location("limits.html"))
