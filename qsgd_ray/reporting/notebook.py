"""Verdicts for a Python prompt and for a notebook: `ArmVerdict`s in, text or an HTML table out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.reporting._formatting import VERDICT_SIGNS, improvement, points, span

_COLUMNS = ("arm", "verdict", "difference", "interval", "P(improvement)", "reason")


def verdict_text(verdicts: Sequence[ArmVerdict]) -> str:
    """Return one line for each verdict: the arm, the word, difference and interval in percentage points, the reason."""
    return "\n".join(
        f"{v.arm}: {v.verdict}, {points(v.difference)} points ({span(v.interval, sign=True)}). {v.reason}"
        for v in verdicts
    )


def verdict_html(verdicts: Sequence[ArmVerdict]) -> str:
    """Return an HTML table of the verdicts, differences and intervals in percentage points; text is escaped."""
    rows = (
        (
            v.arm,
            f"{VERDICT_SIGNS[v.verdict]} {v.verdict}",
            points(v.difference),
            span(v.interval, sign=True),
            improvement(v.improvement),
            v.reason,
        )
        for v in verdicts
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in _COLUMNS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
