"""The command `qsgd-ray new`: a name in; a study file that runs as it is, to be changed, out."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import TypeAdapter, ValidationError

from qsgd_ray.config import StudyError
from qsgd_ray.config.base import Name
from qsgd_ray.reporting.console import plain_console

_TEMPLATES = Path(__file__).parent / "templates"


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the study, e.g. my-study: small letters, digits, - _.")
    ],
    folder: Annotated[
        Path, typer.Option("--in", metavar="FOLDER", help="Where the file goes; it is made where it is missing.")
    ] = Path("."),
    template: Annotated[
        Literal["own", "text"],
        typer.Option(help="own: model, data and metric in a class of the file; text: the shipped text task."),
    ] = "own",
) -> None:
    """Write a file with a study of your own to start from (my-study: my_study.py); one that is there already stays."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        allowed = "a letter or digit, then up to 39 letters, digits, - and _, none of them capital"
        raise StudyError(f"NAME: got {name!r}; allowed: {allowed}") from None
    file = folder / f"{_module_name(name)}.py"
    shown = file.name if {'"', "\\"} & {*str(file)} else str(file)  # it stands in a docstring
    text = (
        (_TEMPLATES / f"{template}.py.template")
        .read_text(encoding="utf-8")
        .replace("{name}", name)
        .replace("{file}", shown)
    )
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


def _module_name(name: str) -> str:
    """Return the name of a study's file: one by which a worker can import its class, and no other module."""
    word = name.replace("-", "_")
    taken = word in sys.stdlib_module_names or word in sys.modules or iskeyword(word)
    return f"study_{word}" if taken or not word.isidentifier() or _is_installed(word) else word


def _is_installed(word: str) -> bool:
    """Return True where a module of this name is found, but for one in the folder from which the command is run."""
    try:
        found = find_spec(word)
    except (ImportError, ValueError):
        return True
    return found is not None and (found.origin is None or Path(found.origin).resolve().parent != Path.cwd())
