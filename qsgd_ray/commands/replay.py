"""`qsgd-ray replay`: a study's folder and a trial in; whether its bits come out again. Exit code 1: not all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qsgd_ray.storage import storage_at

if TYPE_CHECKING:
    from qsgd_ray.study.replay import Replay

SHOWN = 40


def replay(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's results: a folder or e.g. s3://BUCKET/PREFIX.")
    ],
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id, or a beginning of it that no other has.")
    ],
) -> None:
    """Run one trial of a study again, on this machine, and compare it bit for bit with its row."""
    place = storage_at(where, "DIR")
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    from qsgd_ray.results import Results
    from qsgd_ray.results.provenance import provenance
    from qsgd_ray.study.replay import elsewhere, kept_trial
    from qsgd_ray.study.replay import replay as run_again

    console = Console()
    kept = kept_trial(Results(place), trial)
    workers = "one worker" if kept.trial.workers == 1 else f"{kept.trial.workers} workers"
    about = f"{kept.row['trial_id']}: {kept.row['epochs_run']} epochs from seed {kept.trial.seed} on {workers}"
    console.print(about, style="bold", soft_wrap=True, highlight=False)
    if others := elsewhere(kept.made_with, provenance(kept.study, None, [], None)):
        console.print(f"Made elsewhere: {'; '.join(others)}.", soft_wrap=True, highlight=False, markup=False)
    found = run_again(kept)
    if found.differences:
        console.print(difference_table(found))
        raise SystemExit(1)
    digest = f", parameters {found.parameters_sha256}" if found.parameters_sha256 else ""
    told = f"The same bits: {found.ending}, {found.n_measurements} measurements{digest}."
    console.print(told, soft_wrap=True, highlight=False)


def difference_table(found: Replay) -> Table:
    """The columns that came out otherwise, the first `SHOWN` of them."""
    n = len(found.differences)
    title = f"{n} {'value differs' if n == 1 else 'values differ'}" + (f", the first {SHOWN}:" if n > SHOWN else ":")
    table = Table(title=Text(title, style="bold red"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("column", "epoch", "in the row", "now"):
        table.add_column(name, overflow="fold")
    for difference in found.differences[:SHOWN]:
        epoch = "" if difference.epoch is None else str(difference.epoch)
        table.add_row(difference.column, epoch, _exact(difference.kept), _exact(difference.now))
    return table


def _exact(value: Any) -> Text:
    return Text("–" if value is None else repr(value) if isinstance(value, float) else str(value))
