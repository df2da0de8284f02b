"""The figure of a joint verdict: the analysis of several workloads in; scores by workload and over all out."""

from __future__ import annotations

import plotly.graph_objects as go

from qsgd_ray.analysis.joint import JointAnalysis
from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.reporting._formatting import counted, table_cell
from qsgd_ray.reporting._plot_parts import SHADE, ArmStyle, arm_styles, lanes, without_legend
from qsgd_ray.reporting.plot_style import GREY, CaptionedFigure, NumberTable, name_axes

_ALL = "all workloads"
_LANE_PX = 36


def joint_figure(analysis: JointAnalysis) -> CaptionedFigure:
    """Draw each arm's mean difference on every workload in margins, and over all, with intervals."""
    study, styles = analysis.study, arm_styles(analysis.study)
    rows = [
        (v.arm, name, verdict)
        for index, v in enumerate(analysis.verdicts)
        for name, verdict in ((_ALL, v), *((name, cells[index]) for name, cells in analysis.cells.items()))
    ]
    figure = lanes([f"<b>{arm}</b>" if name == _ALL else f"{name}" for arm, name, _ in rows])
    figure.update_layout(height=90 + _LANE_PX * len(rows))
    figure.add_vrect(x0=-1, x1=1, fillcolor=SHADE, line_width=0, layer="below")
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    numbers = []
    for lane, (arm, name, verdict) in enumerate(rows):
        values = _in_margins(verdict)
        numbers.append([arm, name, *(table_cell(value) for value in values)])
        _add(figure, styles[arm], lane, values, is_joint=name == _ALL)
    name_axes(figure, f"difference to {study.baseline} in margins; better to the right", None)
    level = f"{100 * (1 - study.decision.alpha):g} %"
    drawn = [verdict for _, _, verdict in rows if verdict.difference is not None]
    return CaptionedFigure(
        "joint-scores",
        "Every workload, and all of them",
        figure if drawn else None,
        f"Of each arm first the joint score, large, then its mean difference on each workload, divided by the "
        f"workload's margin and turned so that better lies to the right; lines are {level} intervals, and the shaded "
        f"band is one margin to either side. {counted(len(rows) - len(drawn), 'mean')} without a complete pair.",
        NumberTable("Means in margins.", ["arm", "workload", "mean", "low", "high"], numbers),
    )


def _in_margins(verdict: ArmVerdict) -> tuple[float | None, float | None, float | None]:
    """Return mean and interval of a verdict in margins, the larger the better; None where they are missing."""
    if verdict.difference is None:
        return None, None, None
    scale = verdict.metric.sign / verdict.margin
    mean = verdict.difference * scale + 0.0
    if verdict.interval is None:
        return mean, None, None
    low, high = sorted(edge * scale for edge in verdict.interval)
    return mean, low, high


def _add(
    figure: go.Figure,
    style: ArmStyle,
    lane: int,
    values: tuple[float | None, float | None, float | None],
    *,
    is_joint: bool,
) -> None:
    mean, low, high = values
    if mean is None:
        return
    if low is not None and high is not None:
        figure.add_scatter(
            x=[low, high],
            y=[lane, lane],
            mode="lines",
            line={"color": style.colour, "width": 4 if is_joint else 2},
            hoverinfo="skip",
            **without_legend(),
        )
    figure.add_scatter(
        x=[mean],
        y=[lane],
        mode="markers",
        marker={
            "color": style.colour,
            "symbol": style.marker,
            "size": 14 if is_joint else 8,
            "line": {"color": GREY, "width": 1},
        },
        hovertemplate="%{x:.3~g} margins<extra></extra>",
        **without_legend(),
    )
