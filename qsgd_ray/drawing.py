"""The hand of the figures: arms' colours and markers, axes, lanes, bands and whiskers, in plotly's words.

Backgrounds are transparent and greys are middle greys, so that one figure serves a light and a dark page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis.profile import Profile
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.summary import Row, confirm_rows
from qsgd_ray.config import Study
from qsgd_ray.results import Tables

GREY = "#858585"
FAINT = "rgba(133,133,133,0.28)"
SHADE = "rgba(133,133,133,0.18)"
# Okabe and Ito's colours, the blue a step lighter, without black and yellow, which one of the two pages would swallow;
# then two of ColorBrewer's.
COLOURS = ("#1C7FC0", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6BB1", "#A6761D")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "hexagon", "bowtie")

# A run's numbers by epoch.
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Drawn:
    """A figure and its words. `figure` None: there are no rows to draw."""

    name: str
    title: str
    figure: go.Figure | None
    caption: str


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str


def looks(study: Study) -> dict[str, Look]:
    """Colour and marker of every arm: grey for the baseline, the others by the study's order."""
    others = [arm.name for arm in study.arms if arm.name != study.baseline]
    found = {name: Look(COLOURS[i % 8], MARKERS[1 + i % 8]) for i, name in enumerate(others)}
    return {arm.name: found.get(arm.name, Look(GREY, MARKERS[0])) for arm in study.arms}


def count(number: int, noun: str = "run") -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def dress(figure: go.Figure, height: int) -> go.Figure:
    """Transparent, quiet, legend above; the page's style sheet sets the colour of words."""
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "family": "system-ui, sans-serif", "size": 13},
        margin={"l": 8, "r": 14, "t": 12, "b": 8},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
        dragmode=False,
    )
    quiet = {"automargin": True, "gridcolor": FAINT, "zeroline": False, "title": {"font": {"size": 13}, "standoff": 8}}
    figure.update_xaxes(quiet)
    figure.update_yaxes(quiet)
    return figure


def lanes(names: Sequence[str]) -> go.Figure:
    """A figure with one horizontal lane an arm, the first on top."""
    figure = dress(go.Figure(), 90 + 62 * len(names))
    lane_axis(figure, names)
    return figure


def lane_axis(figure: go.Figure, names: Sequence[str], **where: int) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[f"{name} " for name in names],
        range=[len(names) - 0.45, -0.55],
        showgrid=False,
        zeroline=False,
        **where,
    )


def name_axes(figure: go.Figure, x: str, y: str | None) -> None:
    figure.update_xaxes(title={"text": x})
    if y:
        figure.update_yaxes(title={"text": y})


def powers() -> dict[str, Any]:
    """A logarithmic axis labelled at powers of ten, which plotly sets a quarter larger than other labels."""
    return {"type": "log", "dtick": 1, "exponentformat": "power", "tickfont": {"size": 11}}


def silent(arm: str | None = None) -> dict[str, Any]:
    """A trace without an entry of its own in the legend; it comes and goes with its arm's."""
    return {"showlegend": False, "legendgroup": arm}


def thin(figure: go.Figure, arm: str, look: Look, points: Points, scale: float = 1, *, whole: bool = True) -> None:
    """One run by epoch; dotted where it did not complete."""
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[scale * y for _, y in points],
        mode="lines" if len(points) > 1 else "markers",
        line={"color": look.colour, "width": 1, "dash": "solid" if whole else "dot"},
        marker={"color": look.colour, "size": 4},
        opacity=0.3 if whole else 0.85,
        hoverinfo="skip",
        **silent(arm),
    )


def band(figure: go.Figure, arm: str, look: Look, runs: Sequence[Points], scale: float = 1) -> None:
    """Interquartile mean of `runs` at the epochs that all of them have, and its bootstrap band."""
    epochs = sorted(set.intersection(*({x for x, _ in run} for run in runs))) if runs else []
    if not epochs:
        return
    values = scale * np.array([[y for x, y in run if x in set(epochs)] for run in runs], dtype=np.float64)
    edges = statistics.bootstrap_band(values)
    if edges is not None:
        figure.add_scatter(
            x=[*epochs, *reversed(epochs)],
            y=[*edges[1].tolist(), *reversed(edges[0].tolist())],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=look.colour,
            opacity=0.16,
            hoverinfo="skip",
            **silent(arm),
        )
    figure.add_scatter(
        x=epochs,
        y=statistics.interquartile_mean(values).tolist(),
        mode="lines+markers",
        line={"color": look.colour, "width": 2.5},
        marker={"symbol": look.marker, "size": 7, "maxdisplayed": 12},
        name=arm,
        legendgroup=arm,
        hovertemplate=f"{arm}, epoch %{{x}}: %{{y:.3~g}}<extra></extra>",
    )


def steps(figure: go.Figure, arm: str, look: Look, profile: Profile, scale: float) -> None:
    """A falling staircase with its band; a step falls right after the score that fewer runs pass."""
    x = (scale * profile.thresholds).tolist()
    edge = {"x": x, "mode": "lines", "hoverinfo": "skip", "line": {"width": 0, "shape": "vh"}, **silent(arm)}
    figure.add_scatter(y=(100 * profile.low).tolist(), **edge)
    figure.add_scatter(
        y=(100 * profile.high).tolist(), fill="tonexty", fillcolor=transparent(look.colour, 0.12), **edge
    )
    figure.add_scatter(
        x=x,
        y=(100 * profile.share).tolist(),
        mode="lines+markers",
        line={"color": look.colour, "width": 2.5, "shape": "vh"},
        marker={"symbol": look.marker, "size": 6, "maxdisplayed": 12},
        name=arm,
        legendgroup=arm,
        hovertemplate=f"{arm}: %{{y:.0f}} % of {count(profile.n)} reach %{{x:.4~g}} %<extra></extra>",
    )


def transparent(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def dots(figure: go.Figure, arm: str, look: Look, lane: float, by_seed: dict[int, float], **where: int) -> None:
    """One marker a seed in a lane; seeds with the same number stand one above the other."""
    ties, seen = Counter(by_seed.values()), Counter[float]()
    heights = []
    for x in by_seed.values():
        heights.append(lane + min(0.16, 0.6 / ties[x]) * (seen[x] - (ties[x] - 1) / 2))
        seen[x] += 1
    hollow = look.marker.startswith("x-thin")
    figure.add_scatter(
        x=list(by_seed.values()),
        y=heights,
        mode="markers",
        marker={"color": look.colour, "symbol": look.marker, "size": 8, "opacity": 1 if hollow else 0.7}
        | ({"line": {"width": 2}} if hollow else {}),
        customdata=list(by_seed),
        hovertemplate=f"{arm}, seed %{{customdata}}: %{{x:.4~g}}<extra></extra>",
        **silent(),
        **where,
    )


def whisker(
    figure: go.Figure,
    arm: str,
    look: Look,
    lane: float,
    centre: float,
    interval: Interval | None,
    inner: Interval | None = None,
) -> None:
    """A large marker with its interval, and a thicker one inside it; fractions of one, drawn as percent."""
    for edges, width in ((interval, 2), (inner, 5)):
        if edges is not None:
            figure.add_scatter(
                x=[100 * edges.low, 100 * edges.high],
                y=[lane, lane],
                mode="lines",
                line={"color": look.colour, "width": width},
                hoverinfo="skip",
                **silent(),
            )
    span = f" ({100 * interval.low:.2f} to {100 * interval.high:.2f})" if interval else ""
    figure.add_scatter(
        x=[100 * centre],
        y=[lane],
        mode="markers",
        marker={"color": look.colour, "symbol": look.marker, "size": 13, "line": {"color": GREY, "width": 1}},
        hovertemplate=f"{arm}: %{{x:.2f}}{span}<extra></extra>",
        **silent(),
    )


def trajectories(tables: Tables, arm: str, value: Callable[[Row], float | None]) -> list[tuple[Row, Points]]:
    """Every confirmation run of `arm` with `value` by epoch, epochs without a finite value left out."""
    rows = confirm_rows(tables, arm)
    found: dict[str, Points] = {row["trial_id"]: [] for row in rows}
    for measurement in tables.measurements.to_pylist():
        y = value(measurement)
        if measurement["trial_id"] in found and y is not None and np.isfinite(y):
            found[measurement["trial_id"]].append((measurement["epoch"], y))
    return [(row, sorted(found[row["trial_id"]])) for row in rows]
