"""The hand of the figures: arms' colours and markers, axes, lanes, bands and whiskers, in plotly's words.

Backgrounds are transparent and greys are middle greys, so that one figure serves a light and a dark page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, TypeVar

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis.profile import Profile
from qsgd_ray.analysis.statistics import Floats, Interval
from qsgd_ray.analysis.summary import Row, confirm_rows
from qsgd_ray.config import Study
from qsgd_ray.results import StudyTables

T = TypeVar("T")

GREY = "#858585"
FAINT = "rgba(133,133,133,0.28)"
SHADE = "rgba(133,133,133,0.18)"
# Okabe and Ito's colours, the blue a step lighter, without black and yellow, which one of the two pages would swallow;
# then two of ColorBrewer's.
COLOURS = ("#1C7FC0", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6BB1", "#A6761D")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "hexagon", "bowtie")

# How many single runs a figure shows at most, all arms together; beyond that the eye, too, sees only a cloud.
MOST_LINES = 300
# More of one arm lie one over the other and are drawn fainter.
MANY = 40
# Fewer values have no shape worth a curve.
LEAST_VIOLIN = 30
# Of the table of a figure's numbers: the Parquet rows have them all.
MOST_ROWS = 60


class Points(NamedTuple):
    """A run's numbers by epoch, ascending."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Numbers:
    """What a figure shows, as a table for who does not see it; `told`: what its rows are."""

    told: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Drawn:
    """A figure, its words and its numbers. `figure` None: there are no rows to draw."""

    name: str
    title: str
    figure: go.Figure | None
    caption: str
    numbers: Numbers | None = None


def by_row(told: str, first: str, keys: Sequence[float], columns: Mapping[str, Mapping[Any, float | str]]) -> Numbers:
    """A row a key (a seed, an epoch), a column an arm; at most `MOST_ROWS`, evenly among them."""
    keys = [key for key in keys if any(key in column for column in columns.values())]
    shown = spread_out(keys, MOST_ROWS)
    left_out = f" {len(shown)} of {len(keys)} rows." if len(shown) < len(keys) else ""
    rows = [[f"{key:g}", *(_told(column.get(key)) for column in columns.values())] for key in shown]
    return Numbers(f"{told}{left_out}", [first, *columns], rows)


def _told(value: float | str | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:.4g}".replace("-", "−")


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


def thin(figure: go.Figure, arm: str, look: Look, runs: Sequence[Points], scale: float = 1, *, whole: bool) -> None:
    """Single runs by epoch; dotted where they did not complete. One trace: a browser is slow with hundreds."""
    for some, mode in (([r for r in runs if len(r.x) > 1], "lines"), ([r for r in runs if len(r.x) == 1], "markers")):
        if some:
            figure.add_scatter(
                x=joined(run.x for run in some),
                y=joined(scale * run.y for run in some),
                mode=mode,
                line={"color": look.colour, "width": 1, "dash": "solid" if whole else "dot"},
                marker={"color": look.colour, "size": 4},
                opacity=(0.3 if len(runs) <= MANY else 0.12) if whole else 0.85,
                hoverinfo="skip",
                **silent(arm),
            )


def joined(parts: Iterable[Floats]) -> list[float | None]:
    """The parts one after the other with a gap after each, in six digits: more cannot be seen, and the page is read."""
    found: list[float | None] = []
    for part in parts:
        found += [float(f"{x:.6g}") for x in part.tolist()]
        found.append(None)
    return found


def spread_out(runs: Sequence[T], most: int) -> Sequence[T]:
    """At most `most` of `runs`, evenly among them: the same ones whenever the page is made."""
    if len(runs) <= most:
        return runs
    return [runs[i] for i in np.linspace(0, len(runs) - 1, most).round().astype(int)]


def band(figure: go.Figure, arm: str, look: Look, runs: Sequence[Points], scale: float = 1) -> dict[float, float]:
    """Interquartile mean of `runs` at the epochs that all of them have, which comes back, and its bootstrap band."""
    epochs = reduce(np.intersect1d, [run.x for run in runs]) if runs else np.empty(0)
    if not len(epochs):
        return {}
    values = scale * np.stack([run.y[np.searchsorted(run.x, epochs)] for run in runs])
    edges = statistics.bootstrap_band(values)
    if edges is not None:
        figure.add_scatter(
            x=[*epochs.tolist(), *reversed(epochs.tolist())],
            y=[*edges[1].tolist(), *reversed(edges[0].tolist())],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=look.colour,
            opacity=0.16,
            hoverinfo="skip",
            **silent(arm),
        )
    means = statistics.interquartile_mean(values).tolist()
    figure.add_scatter(
        x=epochs.tolist(),
        y=means,
        mode="lines+markers",
        line={"color": look.colour, "width": 2.5},
        marker={"symbol": look.marker, "size": 7, "maxdisplayed": 12},
        name=arm,
        legendgroup=arm,
        hovertemplate=f"{arm}, epoch %{{x}}: %{{y:.3~g}}<extra></extra>",
    )
    return dict(zip(epochs.tolist(), means, strict=True))


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
    # A large study's seeds are many points: in six digits they take half the room.
    by_seed = {seed: float(f"{x:.6g}") for seed, x in by_seed.items()}
    ties, seen = Counter(by_seed.values()), Counter[float]()
    heights = []
    for x in by_seed.values():
        heights.append(round(lane + min(0.16, 0.6 / ties[x]) * (seen[x] - (ties[x] - 1) / 2), 4))
        seen[x] += 1
    hollow, opacity = look.marker.startswith("x-thin"), 0.7 if len(by_seed) <= MANY else 0.25
    figure.add_scatter(
        x=list(by_seed.values()),
        y=heights,
        mode="markers",
        marker={"color": look.colour, "symbol": look.marker, "size": 8, "opacity": 1 if hollow else opacity}
        | ({"line": {"width": 2}} if hollow else {}),
        customdata=list(by_seed),
        hovertemplate=f"{arm}, seed %{{customdata}}: %{{x:.4~g}}<extra></extra>",
        **silent(),
        **where,
    )


def violin(figure: go.Figure, look: Look, lane: float, values: Sequence[float]) -> None:
    """How many values lie where, above their lane; of few the dots themselves tell."""
    if len(values) >= LEAST_VIOLIN and len(set(values)) > 1:
        figure.add_violin(
            x=[float(f"{x:.6g}") for x in values],
            y0=lane - 0.2,
            orientation="h",
            side="negative",
            width=0.5,
            points=False,
            spanmode="hard",
            fillcolor=transparent(look.colour, 0.3),
            line={"color": look.colour, "width": 1},
            hoverinfo="skip",
            **silent(),
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


def trajectories(tables: StudyTables, arm: str, value: Callable[[pa.Table], Floats]) -> list[tuple[Row, Points]]:
    """Every confirmation run of `arm` with `value` (a number a measurement) by epoch, in the order of the seeds; epochs
    without a finite value are left out."""
    found = []
    for row in confirm_rows(tables, arm):
        curve = tables.curve(row["trial_id"])
        y = value(curve)
        there = np.isfinite(y)
        found.append((row, Points(numbers(curve, "epoch")[there], y[there])))
    return found


def numbers(rows: pa.Table, column: str) -> Floats:
    """A column as float64, NaN where it is null."""
    values = rows[column].to_numpy()
    return np.asarray(values, dtype=np.float64)
