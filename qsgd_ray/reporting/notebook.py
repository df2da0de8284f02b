"""Verdicts for a Python prompt and for a notebook: `ArmVerdict`s in, text or an HTML table out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from qsgd_ray.analysis.joint import ESTIMAND, JointAnalysis
from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.reporting._formatting import VERDICT_SIGNS, difference, improvement, span, with_unit

_COLUMNS = ("arm", "verdict", "difference", "interval", "P(improvement)", "reason")


def verdict_text(verdicts: Sequence[ArmVerdict]) -> str:
    """Return one line for each verdict: the arm, the word, difference and interval in the metric's unit, the reason."""
    return "\n".join(
        f"{v.arm}: {v.verdict}, {with_unit(v.difference, v.metric)} "
        f"({span(v.interval, sign=True, metric=v.metric)}). {v.reason}"
        for v in verdicts
    )


def verdict_html(verdicts: Sequence[ArmVerdict]) -> str:
    """Return an HTML table of the verdicts, differences and intervals in the metric's unit; text is escaped."""
    rows = (
        (
            v.arm,
            f"{VERDICT_SIGNS[v.verdict]} {v.verdict}",
            difference(v.difference, v.metric),
            span(v.interval, sign=True, metric=v.metric),
            improvement(v.improvement),
            v.reason,
        )
        for v in verdicts
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in _COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def joint_html(analysis: JointAnalysis) -> str:
    """Return an HTML table with a row an arm and a column a workload, and what the joint score is; text is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("arm", *analysis.cells))
    body = ""
    for index, joint in enumerate(analysis.verdicts):
        cells = [of_workload[index] for of_workload in analysis.cells.values()]
        texts = [f"{VERDICT_SIGNS[v.verdict]} {v.verdict}, {with_unit(v.difference, v.metric)}" for v in cells]
        body += "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in (joint.arm, *texts)) + "</tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"{table}<p>{escape(ESTIMAND)}</p>"
