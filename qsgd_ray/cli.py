"""The command `qsgd-ray` and its exit codes.

2 and one line for bad input, 1 and one line for a failed store; 3 for a verdict that `--fail-on` names.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from qsgd_ray import __version__
from qsgd_ray.commands.bench import bench
from qsgd_ray.commands.circuit import circuit
from qsgd_ray.commands.compare import compare
from qsgd_ray.commands.dashboard import dashboard
from qsgd_ray.commands.errors import complain
from qsgd_ray.commands.judge import judge
from qsgd_ray.commands.list import list_studies
from qsgd_ray.commands.new import new
from qsgd_ray.commands.plan import plan
from qsgd_ray.commands.replay import replay
from qsgd_ray.commands.report import report
from qsgd_ray.commands.run import run
from qsgd_ray.commands.status import status
from qsgd_ray.commands.track import track
from qsgd_ray.config import StudyError
from qsgd_ray.execution.errors import RayLost
from qsgd_ray.reporting.console import degrade_output
from qsgd_ray.storage import StorageError, has_open_request

_app = typer.Typer(
    help="Compare ways to train a model by studies that end in a verdict, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_app.add_typer(bench, name="bench")
for command in (new, run, status, report, compare, judge, replay, track, plan, circuit, dashboard):
    _app.command()(command)
_app.command("list")(list_studies)


def main() -> None:
    """Run the command line; the entry point of the console script."""
    degrade_output()
    try:
        _app()
    except (StudyError, StorageError, RayLost) as error:
        complain(error)
        code = 2 if isinstance(error, StudyError) else 1
        if has_open_request():
            os._exit(code)
        raise SystemExit(code) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@_app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Compare ways to train a model by studies that end in a verdict, on Ray."""


if __name__ == "__main__":
    main()
