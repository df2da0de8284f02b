"""A joint verdict on a terminal: the analysis of several workloads in, rich's tables out."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.joint import ESTIMAND, JOINT_SCORE, JointAnalysis
from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.reporting._formatting import VERDICT_SIGNS, VERDICT_STYLES, difference, improvement, span, with_unit


def joint_report(analysis: JointAnalysis) -> list[RenderableType]:
    """Return everything that a terminal shows of a study of several workloads, in reading order."""
    study = analysis.study
    joint = _table(study.question)
    for column in (
        "arm",
        f"over {len(analysis.parts)} workloads",
        "joint score\nin margins",
        f"{100 * (1 - study.decision.alpha):g} % interval",
        "P(improvement)",
    ):
        joint.add_column(column, overflow="fold")
    for v in analysis.verdicts:
        numbers = (difference(v.difference, JOINT_SCORE), span(v.interval, sign=True, metric=JOINT_SCORE))
        joint.add_row(Text(v.arm), _word(v), *numbers, improvement(v.improvement))
    cells = _table("Each workload")
    cells.add_column("arm", overflow="fold")
    for name in analysis.cells:
        cells.add_column(Text(name), overflow="fold")
    for index, v in enumerate(analysis.verdicts):
        row = [of_workload[index] for of_workload in analysis.cells.values()]
        cells.add_row(Text(v.arm), *(Text.assemble(_word(c), f"\n{with_unit(c.difference, c.metric)}") for c in row))
    margins = ", ".join(
        f"{name} {with_unit(part.study.decision.margin, part.metric, sign=False)} of test {part.metric_label}"
        for name, part in analysis.parts.items()
    )
    n_cells = len(analysis.cells) * len(analysis.verdicts)
    return [
        joint,
        *(Text.assemble((f"{v.arm}: ", "bold"), v.reason) for v in analysis.verdicts),
        cells,
        Text(
            f"{ESTIMAND} Differences are arm less {study.baseline}. Margins: {margins}; alpha "
            f"{study.decision.alpha:g}. Holm's correction: over {len(analysis.verdicts)} arms, and over "
            f"{n_cells} arms and workloads in the second table.",
            style="dim",
        ),
    ]


def _word(verdict: ArmVerdict) -> Text:
    text = f"{VERDICT_SIGNS[verdict.verdict]} {verdict.verdict}"
    return Text(text, style=VERDICT_STYLES[verdict.verdict], no_wrap=True)


def _table(title: str) -> Table:
    return Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
