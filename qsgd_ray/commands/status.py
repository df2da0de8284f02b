"""The command `qsgd-ray status`: a study's folder in; how far it is and who runs it, out, from any terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from qsgd_ray.commands._machine_options import JsonFormat, check_choice, print_text
from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import StorageError, storage_at


def status(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's results: a folder or e.g. s3://BUCKET/PREFIX.")
    ],
    text_format: JsonFormat = None,
) -> None:
    """Show how far a study is, also while it runs; rows and lease are read, nothing is written."""
    check_choice("--format", text_format, ("json",))
    from qsgd_ray.limits.rows import is_limits
    from qsgd_ray.reporting.status_tables import status_report
    from qsgd_ray.study.status import STATUS_FORMAT, STATUS_VERSION, study_status

    storage = storage_at(where, "DIR")
    try:
        if is_limits(storage):
            raise StudyError(f"DIR: got {storage}, a study of limits; allowed: a study with arms (qsgd-ray list)")
        tree = study_status(storage, watch=True)
    except StorageError as error:
        raise StudyError(f"DIR: got {storage}; allowed: a study's results that can be read ({error})") from None
    if text_format is not None:
        print_text(json.dumps({"format": STATUS_FORMAT, "version": STATUS_VERSION} | tree, indent=2) + "\n")
        return
    console = plain_console()
    for part in status_report(tree):
        console.print(part, soft_wrap=True)
