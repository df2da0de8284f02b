"""Print the result of a study, as `qsgd-ray run` and `qsgd-ray report` end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from qsgd_ray.study.result import StudyResult


def print_result(result: StudyResult, console: Console) -> None:
    """Print the tables and verdicts of a study, and where its page is.

    Args:
        result: the study's result; its page has been written.
        console: where to print.
    """
    from qsgd_ray.reporting.terminal import study_report

    for part in study_report(result.analysis):
        console.print(part)
    for note in result.analysis.notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {result.page}", soft_wrap=True, highlight=False, markup=False)
