"""Parts of a study's figures: lanes, dots, whiskers, violins, curves and bands, added to plotly figures.

Numbers come from `qsgd_ray.analysis`; here they are only placed and coloured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from qsgd_ray.analysis.curves import MeanCurve, RunCurve
from qsgd_ray.analysis.metric import factor_of, number_text
from qsgd_ray.analysis.profile import Profile
from qsgd_ray.analysis.statistics import Floats, Interval, evenly_spaced
from qsgd_ray.config import Metric, Study
from qsgd_ray.reporting._formatting import counted, table_cell
from qsgd_ray.reporting.plot_style import COLOURS, GREY, MARKERS, NumberTable, apply_style, transparent

FAINT = transparent(GREY, 0.28)
SHADE = transparent(GREY, 0.18)
# How many single runs a figure shows at most, all arms together; beyond that the eye, too, sees only a cloud.
MOST_LINES = 300
# More of one arm lie one over the other and are drawn fainter.
MANY = 40
# Fewer values have no shape worth a curve.
LEAST_VIOLIN = 30
# Rows of the table of a figure's numbers: the Parquet rows have them all.
MOST_ROWS = 60


@dataclass(frozen=True)
class ArmStyle:
    """The colour (#RRGGBB) and the marker (plotly's name) of an arm."""

    colour: str
    marker: str


def arm_styles(study: Study) -> dict[str, ArmStyle]:
    """Return the style of every arm: grey for the baseline, the others by the study's order."""
    others = [arm.name for arm in study.arms if arm.name != study.baseline]
    styles = {name: ArmStyle(COLOURS[i % 8], MARKERS[1 + i % 8]) for i, name in enumerate(others)}
    return {arm.name: styles.get(arm.name, ArmStyle(GREY, MARKERS[0])) for arm in study.arms}


def number_table(
    description: str, first: str, keys: Sequence[float], columns: Mapping[str, Mapping[Any, float | str]]
) -> NumberTable:
    """Return a table with a row a key (a seed, an epoch) and a column an arm; evenly chosen, at most `MOST_ROWS`."""
    keys = [key for key in keys if any(key in column for column in columns.values())]
    shown = evenly_spaced(keys, MOST_ROWS)
    left_out = f" {len(shown)} of {len(keys)} rows." if len(shown) < len(keys) else ""
    rows = [[f"{key:g}", *(table_cell(column.get(key)) for column in columns.values())] for key in shown]
    return NumberTable(f"{description}{left_out}", [first, *columns], rows)


def lanes(names: Sequence[str]) -> go.Figure:
    """Return a figure with one horizontal lane an arm, the first on top."""
    figure = apply_style(go.Figure(), 90 + 62 * len(names))
    lane_axis(figure, names)
    return figure


def lane_axis(figure: go.Figure, names: Sequence[str], **where: int) -> None:
    """Label the vertical axis with one lane an arm; `where`: row and column of a subplot."""
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[f"{name} " for name in names],
        range=[len(names) - 0.45, -0.55],
        showgrid=False,
        zeroline=False,
        **where,
    )


def without_legend(arm: str | None = None) -> dict[str, Any]:
    """Return the options of a trace without an entry of its own in the legend; it comes and goes with its arm's."""
    return {"showlegend": False, "legendgroup": arm}


def add_single_runs(figure: go.Figure, arm: str, style: ArmStyle, runs: Sequence[RunCurve], *, complete: bool) -> None:
    """Add thin lines, dotted where the runs did not complete. One trace for all: a browser is slow with hundreds."""
    several, single = [r for r in runs if len(r.epochs) > 1], [r for r in runs if len(r.epochs) == 1]
    for drawn, mode in ((several, "lines"), (single, "markers")):
        if drawn:
            figure.add_scatter(
                x=joined(run.epochs for run in drawn),
                y=joined(run.values for run in drawn),
                mode=mode,
                line={"color": style.colour, "width": 1, "dash": "solid" if complete else "dot"},
                marker={"color": style.colour, "size": 4},
                opacity=(0.3 if len(runs) <= MANY else 0.12) if complete else 0.85,
                hoverinfo="skip",
                **without_legend(arm),
            )


def joined(parts: Iterable[Floats]) -> list[float | None]:
    """Return the parts one after the other with a gap after each, in six digits: more cannot be seen."""
    values: list[float | None] = []
    for part in parts:
        values += [float(f"{x:.6g}") for x in part.tolist()]
        values.append(None)
    return values


def add_mean_curve(figure: go.Figure, arm: str, style: ArmStyle, curve: MeanCurve | None) -> dict[float, float]:
    """Add a mean curve with its band, and return the mean by epoch; nothing of None."""
    if curve is None:
        return {}
    epochs, mean = curve.epochs.tolist(), curve.mean.tolist()
    if curve.band is not None:
        low, high = curve.band
        figure.add_scatter(
            x=[*epochs, *reversed(epochs)],
            y=[*high.tolist(), *reversed(low.tolist())],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=style.colour,
            opacity=0.16,
            hoverinfo="skip",
            **without_legend(arm),
        )
    figure.add_scatter(
        x=epochs,
        y=mean,
        mode="lines+markers",
        line={"color": style.colour, "width": 2.5},
        marker={"symbol": style.marker, "size": 7, "maxdisplayed": 12},
        name=arm,
        legendgroup=arm,
        hovertemplate=f"{arm}, epoch %{{x}}: %{{y:.3~g}}<extra></extra>",
    )
    return dict(zip(epochs, mean, strict=True))


def add_profile(figure: go.Figure, arm: str, style: ArmStyle, profile: Profile, metric: Metric) -> None:
    """Add a staircase with its band, in percent of the runs.

    It falls right after a score that fewer runs pass; where less is better it rises right at a score that more reach.
    """
    x = (factor_of(metric) * profile.thresholds).tolist()
    shape = "vh" if metric.direction == "max" else "hv"
    edge = {"x": x, "mode": "lines", "hoverinfo": "skip", "line": {"width": 0, "shape": shape}, **without_legend(arm)}
    unit = " %" if metric.kind == "share" else f" {metric.unit}".rstrip()
    figure.add_scatter(y=(100 * profile.low).tolist(), **edge)
    figure.add_scatter(
        y=(100 * profile.high).tolist(), fill="tonexty", fillcolor=transparent(style.colour, 0.12), **edge
    )
    figure.add_scatter(
        x=x,
        y=(100 * profile.share).tolist(),
        mode="lines+markers",
        line={"color": style.colour, "width": 2.5, "shape": shape},
        marker={"symbol": style.marker, "size": 6, "maxdisplayed": 12},
        name=arm,
        legendgroup=arm,
        hovertemplate=f"{arm}: %{{y:.0f}} % of {counted(profile.n)} reach %{{x:.4~g}}{unit}<extra></extra>",
    )


def add_dots(
    figure: go.Figure, arm: str, style: ArmStyle, lane: float, by_seed: Mapping[int, float], **where: int
) -> None:
    """Add one marker a seed in a lane; seeds with the same number stand one above the other."""
    # A large study's seeds are many points: in six digits they take half the room.
    by_seed = {seed: float(f"{x:.6g}") for seed, x in by_seed.items()}
    ties, seen = Counter(by_seed.values()), Counter[float]()
    heights = []
    for x in by_seed.values():
        heights.append(round(lane + min(0.16, 0.6 / ties[x]) * (seen[x] - (ties[x] - 1) / 2), 4))
        seen[x] += 1
    hollow, opacity = style.marker.startswith("x-thin"), 0.7 if len(by_seed) <= MANY else 0.25
    figure.add_scatter(
        x=list(by_seed.values()),
        y=heights,
        mode="markers",
        marker={"color": style.colour, "symbol": style.marker, "size": 8, "opacity": 1 if hollow else opacity}
        | ({"line": {"width": 2}} if hollow else {}),
        customdata=list(by_seed),
        hovertemplate=f"{arm}, seed %{{customdata}}: %{{x:.4~g}}<extra></extra>",
        **without_legend(),
        **where,
    )


def add_violin(figure: go.Figure, style: ArmStyle, lane: float, values: Sequence[float]) -> None:
    """Add the density of the values above their lane; where they are few the dots themselves show it."""
    if len(values) >= LEAST_VIOLIN and len(set(values)) > 1:
        figure.add_violin(
            x=[float(f"{x:.6g}") for x in values],
            y0=lane - 0.2,
            orientation="h",
            side="negative",
            width=0.5,
            points=False,
            spanmode="hard",
            fillcolor=transparent(style.colour, 0.3),
            line={"color": style.colour, "width": 1},
            hoverinfo="skip",
            **without_legend(),
        )


def add_whisker(
    figure: go.Figure,
    arm: str,
    style: ArmStyle,
    metric: Metric,
    lane: float,
    centre: float,
    interval: Interval | None,
    inner: Interval | None = None,
) -> None:
    """Add a large marker with its interval, and a thicker one inside it, in the metric's unit; a share in percent."""
    factor = factor_of(metric)
    for edges, width in ((interval, 2), (inner, 5)):
        if edges is not None:
            figure.add_scatter(
                x=[factor * edges.low, factor * edges.high],
                y=[lane, lane],
                mode="lines",
                line={"color": style.colour, "width": width},
                hoverinfo="skip",
                **without_legend(),
            )
    span = f" ({' to '.join(number_text(edge, metric) for edge in interval)})" if interval else ""
    digits = ".2f" if metric.kind == "share" else ".4~g"
    figure.add_scatter(
        x=[factor * centre],
        y=[lane],
        mode="markers",
        marker={"color": style.colour, "symbol": style.marker, "size": 13, "line": {"color": GREY, "width": 1}},
        hovertemplate=f"{arm}: %{{x:{digits}}}{span}<extra></extra>",
        **without_legend(),
    )
