"""Figures of scores: a `ScoreAnalysis` in; differences by seed, and scores by arm, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from qsgd_ray.analysis.scores import ScoreAnalysis, Seed
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.reporting._formatting import counted, table_cell
from qsgd_ray.reporting._plot_parts import MOST_ROWS, SHADE, ArmStyle, add_dots, lanes, without_legend
from qsgd_ray.reporting.plot_style import COLOURS, GREY, MARKERS, CaptionedFigure, NumberTable, name_axes


def score_figures(analysis: ScoreAnalysis) -> list[CaptionedFigure]:
    """Return the figures of a page on scores, in reading order."""
    return [_differences_figure(analysis), _scores_figure(analysis)]


def _differences_figure(analysis: ScoreAnalysis) -> CaptionedFigure:
    """Draw each seed's difference, the mean with its intervals, and the margin of equivalence as a band."""
    rule, styles = analysis.rule, _styles(analysis)
    numbers = rule.numbers
    figure = lanes([v.arm for v in analysis.verdicts])
    margin = numbers.shown(rule.margin)
    figure.add_vrect(x0=-margin, x1=margin, fillcolor=SHADE, line_width=0, layer="below")
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    by_arm = {arm: _shown(analysis, of_arm) for arm, of_arm in analysis.differences.items()}
    for lane, v in enumerate(analysis.verdicts):
        add_dots(figure, v.arm, styles[v.arm], lane - 0.16, by_arm[v.arm])  # type: ignore[arg-type]
        _add_mean(figure, analysis, styles[v.arm], lane + 0.18, v.difference, v.interval, v.equivalence_interval)
    unit = f" ({numbers.unit_of_differences})" if numbers.unit_of_differences else ""
    name_axes(figure, f"difference of {rule.score} to {rule.baseline}{unit}", None)
    level, drawn = 100 * (1 - rule.decision.alpha), sum(map(len, by_arm.values()))
    better = "right" if rule.direction == "max" else "left"
    return CaptionedFigure(
        "paired-differences",
        "Differences to the baseline",
        figure if drawn else None,
        f"{counted(drawn, 'complete pair')} of runs, a small marker each; the larger is the mean with its {level:g} % "
        f"interval, whose thick part is the {2 * level - 100:g} % interval of the equivalence test; the shaded band is "
        f"the margin of equivalence, and what is better lies to the {better}. Left out: "
        f"{counted(sum(v.n_lost for v in analysis.verdicts), 'pair')} with a run that has no result, "
        f"{sum(v.n_pending for v in analysis.verdicts)} still to come.",
        _table(f"Difference of {rule.score} at each seed{unit}; – is a pair without.", analysis, by_arm),
    )


def _scores_figure(analysis: ScoreAnalysis) -> CaptionedFigure:
    """Draw the score of every run, and the interquartile mean of each arm with its interval."""
    rule, styles = analysis.rule, _styles(analysis)
    numbers = rule.numbers
    figure = lanes([s.arm for s in analysis.summaries])
    by_arm = {s.arm: _shown(analysis, analysis.scores.by_arm.get(s.arm, {})) for s in analysis.summaries}
    for lane, s in enumerate(analysis.summaries):
        add_dots(figure, s.arm, styles[s.arm], lane - 0.16, by_arm[s.arm])  # type: ignore[arg-type]
        _add_mean(figure, analysis, styles[s.arm], lane + 0.18, s.iqm, s.iqm_interval)
    unit = f" ({numbers.unit_of_values})" if numbers.unit_of_values else ""
    name_axes(figure, f"{rule.score}{unit}", None)
    drawn = sum(map(len, by_arm.values()))
    return CaptionedFigure(
        "scores",
        "Where the arms ended",
        figure if drawn else None,
        f"{counted(drawn)} with a result, a small marker each; the larger marker is the interquartile mean with its "
        f"95 % bootstrap interval. Left out: {counted(sum(s.n_null for s in analysis.summaries))} without a result.",
        _table(f"{rule.score} at each seed{unit}; – has none.", analysis, by_arm),
    )


def _styles(analysis: ScoreAnalysis) -> dict[str, ArmStyle]:
    """Return the style of every arm: grey for the baseline, the others by their order."""
    styles = {v.arm: ArmStyle(COLOURS[i % 8], MARKERS[1 + i % 8]) for i, v in enumerate(analysis.verdicts)}
    return {analysis.rule.baseline: ArmStyle(GREY, MARKERS[0])} | styles


def _shown(analysis: ScoreAnalysis, values: Mapping[Seed, float | None]) -> dict[Seed, float]:
    return {seed: analysis.rule.numbers.shown(value) for seed, value in values.items() if value is not None}


def _add_mean(
    figure: go.Figure,
    analysis: ScoreAnalysis,
    style: ArmStyle,
    lane: float,
    centre: float | None,
    interval: Interval | None,
    inner: Interval | None = None,
) -> None:
    """Add a large marker with its interval, and a thicker one inside it; nothing where there is no mean."""
    numbers = analysis.rule.numbers
    if centre is None:
        return
    for edges, width in ((interval, 2), (inner, 5)):
        if edges is not None:
            figure.add_scatter(
                x=[numbers.shown(edge) for edge in edges],
                y=[lane, lane],
                mode="lines",
                line={"color": style.colour, "width": width},
                hoverinfo="skip",
                **without_legend(),
            )
    figure.add_scatter(
        x=[numbers.shown(centre)],
        y=[lane],
        mode="markers",
        marker={"color": style.colour, "symbol": style.marker, "size": 13, "line": {"color": GREY, "width": 1}},
        hovertemplate="%{x:.4~g}<extra></extra>",
        **without_legend(),
    )


def _table(description: str, analysis: ScoreAnalysis, by_arm: Mapping[str, Mapping[Any, float]]) -> NumberTable:
    seeds = [seed for seed in analysis.scores.seeds if any(seed in of_arm for of_arm in by_arm.values())]
    shown = seeds[:MOST_ROWS]
    more = f" The first {len(shown)} of {len(seeds)} rows." if len(shown) < len(seeds) else ""
    rows = [[str(seed), *(table_cell(of_arm.get(seed)) for of_arm in by_arm.values())] for seed in shown]
    return NumberTable(description + more, ["seed", *by_arm], rows)
