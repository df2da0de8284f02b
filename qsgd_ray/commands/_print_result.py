"""Print the result of a study, as `qsgd-ray run` and `qsgd-ray report` end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from qsgd_ray.study.result import StudyResult
    from qsgd_ray.study.workloads_result import WorkloadsResult


def print_result(result: StudyResult | WorkloadsResult, console: Console) -> None:
    """Print the tables and verdicts of a study, and where its page is.

    Args:
        result: the study's result; its page has been written.
        console: where to print.
    """
    from qsgd_ray.analysis.joint import JointAnalysis
    from qsgd_ray.reporting.joint_terminal import joint_report
    from qsgd_ray.reporting.terminal import study_report

    analysis = result.analysis
    for part in joint_report(analysis) if isinstance(analysis, JointAnalysis) else study_report(analysis):
        console.print(part)
    for note in result.analysis.notes:
        console.print(note, style="yellow", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Report: {result.page}", soft_wrap=True, highlight=False, markup=False)
