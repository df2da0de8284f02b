"""The command `qsgd-ray compare`: the folders of two studies in; what differs, and the arms side by side, out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import StorageError, storage_at

if TYPE_CHECKING:
    from qsgd_ray.analysis.study_analysis import StudyAnalysis


def compare(
    left: Annotated[str, typer.Argument(metavar="DIR1", help="A study's results, e.g. of before a change.")],
    right: Annotated[str, typer.Argument(metavar="DIR2", help="Those to compare with them.")],
) -> None:
    """Print what differs between two studies, and how the same arms did in both."""
    from qsgd_ray.analysis.comparison import compare as compare_studies
    from qsgd_ray.reporting.terminal import arms_table, differences_table

    console = plain_console()
    comparison = compare_studies(_analysis(left, "DIR1"), _analysis(right, "DIR2"))
    console.print(differences_table(comparison, left, right))
    console.print(arms_table(comparison))
    for names, where in ((comparison.only_left, left), (comparison.only_right, right)):
        if names:
            console.print(Text(f"Only in {where}: {', '.join(names)}."), soft_wrap=True)


def _analysis(where: str, option: str) -> StudyAnalysis:
    """Return the analysis of a study's results; a message of an error names the option that they came from."""
    from qsgd_ray.analysis.study_analysis import analyse
    from qsgd_ray.results import read

    storage = storage_at(where, option)
    try:
        return analyse(read(storage))
    except StorageError as error:
        raise StudyError(f"{option}: got {storage}; allowed: a study's results that can be read ({error})") from None
    except StudyError as error:
        raise StudyError(str(error).replace("DIR:", f"{option}:", 1)) from None
