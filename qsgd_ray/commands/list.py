"""The command `qsgd-ray list`: a folder of results in; its studies, a line each, out."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from qsgd_ray.commands._machine_options import JsonFormat, check_choice, print_text
from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import StorageError, storage_at


def list_studies(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="Where studies were run to: a folder or e.g. s3://BUCKET/PREFIX.")
    ] = "results",
    text_format: JsonFormat = None,
) -> None:
    """List the studies in DIR, how far each is and its verdicts; nothing is written."""
    check_choice("--format", text_format, ("json",))
    from qsgd_ray.reporting.status_tables import studies_table
    from qsgd_ray.study.status import STATUS_FORMAT, STATUS_VERSION, studies_below

    storage = storage_at(where, "DIR")
    try:
        storage.check_exists()
        studies = [{"place": place} | tree for place, tree in studies_below(storage)]
    except StorageError as error:
        raise StudyError(f"DIR: got {storage}; allowed: a folder of results that can be read ({error})") from None
    if text_format is not None:
        tree = {"format": STATUS_FORMAT, "version": STATUS_VERSION, "studies": studies}
        print_text(json.dumps(tree, indent=2) + "\n")
    elif studies:
        plain_console().print(studies_table(studies))
    else:
        raise StudyError(f"DIR: got {storage}, in which no study is; allowed: a folder that studies were run into")
