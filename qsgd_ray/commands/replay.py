"""The command `qsgd-ray replay`: run a trial again and compare its bits; exit code 1 where any differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from qsgd_ray.config.loading import load_study
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import storage_at

if TYPE_CHECKING:
    from qsgd_ray.study.replay import Replay

_SHOWN = 40


def replay(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's results: a folder or e.g. s3://BUCKET/PREFIX.")
    ],
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, or a beginning of it that no other has.")
    ],
    study_file: Annotated[
        Path | None,
        typer.Option(
            "--study",
            metavar="STUDY.py",
            help="The study file, for a workload of one's own; nothing is imported from DIR.",
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="PACKAGE", help="A package of your own whose optimizer the trial may name and import."),
    ] = None,
) -> None:
    """Run one trial of a study again, on this machine, and compare it bit for bit with its row."""
    place = storage_at(where, "DIR")
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    from qsgd_ray.results import Results
    from qsgd_ray.results.provenance import provenance
    from qsgd_ray.study.replay import environment_differences, optimizer_differences, stored_trial
    from qsgd_ray.study.replay import replay as run_again

    if study_file is not None:
        load_study(study_file)  # its classes are known from here on
    console = plain_console()
    stored = stored_trial(Results(place), trial)
    workers = "one worker" if stored.trial.workers == 1 else f"{stored.trial.workers} workers"
    about = f"{stored.row['trial_id']}: {stored.row['epochs_run']} epochs from seed {stored.trial.seed} on {workers}"
    console.print(about, style="bold", soft_wrap=True, highlight=False)
    others = environment_differences(stored.made_with, provenance(stored.study, None, [], None))
    if others := [*others, *optimizer_differences(stored, trust or ())]:
        console.print(f"Made elsewhere: {'; '.join(others)}.", soft_wrap=True, highlight=False, markup=False)
    result = run_again(stored, trust or ())
    if result.differences:
        console.print(_difference_table(result))
        raise SystemExit(1)
    digest = f", parameters {result.parameters_sha256}" if result.parameters_sha256 else ""
    line = f"The same bits: {result.ending}, {result.n_measurements} measurements{digest}."
    console.print(line, soft_wrap=True, highlight=False)


def _difference_table(result: Replay) -> Table:
    """Return a table of the values that came out otherwise, the first `_SHOWN` of them."""
    n = len(result.differences)
    title = f"{n} {'value differs' if n == 1 else 'values differ'}" + (f", the first {_SHOWN}:" if n > _SHOWN else ":")
    table = Table(title=Text(title, style="bold red"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("column", "epoch", "in the row", "now"):
        table.add_column(name, overflow="fold")
    for difference in result.differences[:_SHOWN]:
        epoch = "" if difference.epoch is None else str(difference.epoch)
        table.add_row(difference.column, epoch, _exact(difference.stored), _exact(difference.replayed))
    return table


def _exact(value: Any) -> Text:
    return Text("–" if value is None else repr(value) if isinstance(value, float) else str(value))
