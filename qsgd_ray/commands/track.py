"""The command `qsgd-ray track`: write the trials of a study that has run to TensorBoard or MLflow."""

from __future__ import annotations

from typing import Annotated

import typer

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import storage_at


def track(
    where: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's results: a folder or e.g. s3://BUCKET/PREFIX.")
    ],
    to: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[=WHERE]", help="tensorboard[=FOLDER] or mlflow[=URI]; default: among the results. Repeatable."
        ),
    ],
) -> None:
    """Show the trials of a study that has run by TensorBoard or MLflow; those that are there already stay."""
    place = storage_at(where, "DIR")
    from qsgd_ray.results import Results
    from qsgd_ray.tracking.selection import choose_tracker
    from qsgd_ray.tracking.tracker import record_all

    tables = Results(place).tables()
    for choice in [choose_tracker(word, "--to", tables.study.name, place) for word in to]:
        try:
            tracker = choice.open()
            n_new = record_all(tracker, tables)
            tracker.close()
        except StudyError:
            raise
        except Exception as error:  # of a package that is none of ours
            reason = one_line(f"{type(error).__name__}: {error}")
            raise StudyError(f"--to {choice.name}: allowed: a place that can be written ({reason})") from None
        trials = "1 trial is" if n_new == 1 else f"{n_new} trials are"
        plain_console().print(f"{trials} new in {choice.name}.", soft_wrap=True, highlight=False)
