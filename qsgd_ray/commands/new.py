"""The command `qsgd-ray new`: a name in; a study file that runs as it is, to be changed, out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from qsgd_ray.config import StudyError
from qsgd_ray.config.base import Name
from qsgd_ray.reporting.console import plain_console

_TEMPLATE = Path(__file__).parent / "templates" / "study.py.template"


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the study, e.g. my-study: small letters, digits, - _.")
    ],
    folder: Annotated[
        Path, typer.Option("--in", metavar="FOLDER", help="Where the file goes; it is made where it is missing.")
    ] = Path("."),
) -> None:
    """Write NAME.py, a study of your own to start from; a file that is there already stays."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        allowed = "a letter or digit, then up to 39 letters, digits, - and _, none of them capital"
        raise StudyError(f"NAME: got {name!r}; allowed: {allowed}") from None
    file = folder / f"{name.replace('-', '_')}.py"
    shown = file.name if {'"', "\\"} & {*str(file)} else str(file)  # it stands in a docstring
    text = _TEMPLATE.read_text(encoding="utf-8").replace("{name}", name).replace("{file}", shown)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = file.open("x", encoding="utf-8")
    except OSError as error:
        if folder.is_dir() and isinstance(error, FileExistsError):
            raise StudyError(f"NAME: got {name!r}, but {file} is there already; allowed: a new name") from None
        raise StudyError(f"--in: got {folder}; allowed: a folder that can be written ({error.strerror})") from None
    with stream:
        stream.write(text)
    console = plain_console()
    console.print(f"Wrote {file}. Look through it, then:", soft_wrap=True, highlight=False)
    console.print(f"    qsgd-ray run {file}", soft_wrap=True, highlight=False)
