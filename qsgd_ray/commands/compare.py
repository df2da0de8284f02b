"""`qsgd-ray compare`: the folders of two studies in; what differs, and the same arms side by side, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qsgd_ray.config import StudyError
from qsgd_ray.storage import StorageError, storage_at

if TYPE_CHECKING:
    from qsgd_ray.analysis.comparison import Comparison
    from qsgd_ray.results import StudyTables

# A list of seeds would push the rest of the table off the screen.
LONGEST = 40


def compare(
    left: Annotated[str, typer.Argument(metavar="DIR1", help="A study's results, e.g. of before a change.")],
    right: Annotated[str, typer.Argument(metavar="DIR2", help="Those to compare with them.")],
) -> None:
    """Print what differs between two studies, and how the same arms did in both."""
    from qsgd_ray.analysis.comparison import compare as compared

    console = Console()
    found = compared(_read(left, "DIR1"), _read(right, "DIR2"))
    console.print(differences_table(found, left, right))
    console.print(arms_table(found))
    for names, where in ((found.only_left, left), (found.only_right, right)):
        if names:
            console.print(Text(f"Only in {where}: {', '.join(names)}."), soft_wrap=True)


def _read(where: str, option: str) -> StudyTables:
    from qsgd_ray.results import read

    place = storage_at(where, option)
    try:
        return read(place)
    except StorageError as error:
        raise StudyError(f"{option}: got {place}; allowed: a study's results that can be read ({error})") from None
    except StudyError as error:
        raise StudyError(str(error).replace("DIR:", f"{option}:", 1)) from None


def differences_table(found: Comparison, left: str, right: str) -> Table | Text:
    """Settings and provenance, a line a leaf."""
    if not found.differences:
        return Text("Settings, versions and hardware are the same.", style="bold")
    table = Table(title="What differs", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", Text(left), Text(right)):
        table.add_column(column, overflow="fold")
    for difference in found.differences:
        table.add_row(Text(difference.path), _short(difference.left), _short(difference.right))
    return table


def arms_table(found: Comparison) -> Table:
    """The confirmation's results; differences are DIR2 less DIR1, on the seeds that both have."""
    from qsgd_ray.reporting.formatting import digits, interquartile_mean, points, span

    table = Table(
        title="The same arms: test results in percent, DIR1 and DIR2",
        title_style="bold",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("arm", overflow="fold")
    for column in ("DIR1", "DIR2", "difference\nat same seeds", "same\nbits", "time a step\nDIR2 / DIR1"):
        table.add_column(column, justify="right", no_wrap=True)
    for arm in found.arms:
        interval = f"\n({span(arm.interval, sign=True)})" if arm.interval else ""
        bits = f"{arm.n_same_bits} of {arm.n_hashed}" if arm.n_hashed else "–"
        table.add_row(
            Text(arm.arm),
            interquartile_mean(arm.left).replace(" (", "\n("),
            interquartile_mean(arm.right).replace(" (", "\n("),
            f"{points(arm.difference)}{interval}",
            bits,
            digits(arm.step_time_ratio),
        )
    return table


def _short(told: str | None) -> Text:
    if told is None:
        return Text("–")
    return Text(told if len(told) <= LONGEST else f"{told[: LONGEST - 4]} ...")
