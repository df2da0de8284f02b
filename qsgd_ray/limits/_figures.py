"""Draw the figures of a study of limits.

Measured sizes are dots, the fit without the largest size is a line in its 95 % band, and the largest size is a diamond:
the line predicts it before it was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qsgd_ray.config.circuit import Entangle
from qsgd_ray.limits._curves import SECONDS, FittedCurve, size_of
from qsgd_ray.limits._frontier import CircuitCosts, End, Engine, memory_ends, overhead_ends
from qsgd_ray.limits.rows import Row
from qsgd_ray.reporting.plot_style import (
    COLOURS,
    GREY,
    MARKERS,
    CaptionedFigure,
    apply_style,
    log_axis,
    name_axes,
    transparent,
)

AXES = {
    "n_qubits": "qubits",
    "depth": "depth",
    "shots": "shots",
    "n_parameters": "parameters",
    "n_tokens": "tokens a sequence",
    "batch": "circuits",
    "position": "qubit k",
}
QUANTITIES = {
    SECONDS: "seconds",
    "peak_bytes": "bytes",
    "error": "error of <Z>",
    "kept": "part of <Z> left",
    "signal": "|<Z<sub>k</sub>>|",
    "step_ratio": "|λQ<sub>k</sub>| / |Adam's step<sub>k</sub>|",
}
STEPS_BETWEEN = 40
# Below, a signal is far less than the rounding of the float32 that it is added to.
FAINTEST = 1e-24
SHOTS = 1000
# (name, engine, entanglement): the ways to answer that a frontier is drawn of, at depth 2.
WAYS: tuple[tuple[str, Engine, Entangle], ...] = (
    ("whole state, ring", "torch", "ring"),
    ("whole state, chain", "torch", "chain"),
    ("chain in linear time", "chain", "chain"),
)


def fit_figure(fitted: FittedCurve) -> go.Figure | None:
    """Draw one curve: measurements, fit and held-out size; None where nothing is measured."""
    if not fitted.rows:
        return None
    figure = apply_style(go.Figure(), 300)
    column = axis_of(fitted)
    groups = sorted({row["n_actors"] for row in fitted.rows}) if fitted.curve.kind == "pool" else [None]
    for number, group in enumerate(groups):
        rows = [row for row in fitted.rows if group in (None, row["n_actors"])]
        colour = COLOURS[number % len(COLOURS)]
        if fitted.before is not None:
            _line(figure, fitted, rows, column, colour)
        _dots(figure, fitted, rows, colour, "measured" if group is None else f"{group} actors")
    if fitted.held is not None and fitted.largest is not None:
        _diamond(figure, fitted, fitted.largest)
    name_axes(figure, AXES[column], QUANTITIES[fitted.law.quantity])
    if _logarithmic(column, fitted.rows):
        figure.update_xaxes(_axis([size_of(fitted.curve, row) for row in fitted.rows]))
    figure.update_yaxes(_axis([row[fitted.law.quantity] for row in fitted.rows]))
    return figure


def fading_figure(curves: Sequence[FittedCurve], quantity: str) -> CaptionedFigure:
    """Draw all signals of one quantity over their positions, on one scale."""
    figure = apply_style(go.Figure(), 430)
    shown = [fitted for fitted in curves if fitted.law.quantity == quantity and fitted.rows]
    for number, fitted in enumerate(shown):
        look = {"color": COLOURS[number % len(COLOURS)], "symbol": MARKERS[number % len(MARKERS)]}
        figure.add_scatter(
            x=[row["position"] for row in fitted.rows],
            y=[row[quantity] for row in fitted.rows],
            mode="lines+markers",
            name=_signal_name(fitted),
            marker=look | {"size": 7},
            line={"color": look["color"], "width": 1.5},
            hovertemplate=f"{_signal_name(fitted)}, k = %{{x}}: %{{y:.3~g}}<extra></extra>",
        )
    name_axes(figure, AXES["position"], QUANTITIES[quantity])
    figure.update_yaxes(log_axis() | {"range": [math.log10(FAINTEST), 0.3], "dtick": 4})
    if quantity == "signal":
        noise = 1 / math.sqrt(SHOTS)
        figure.add_hline(y=noise, line={"color": GREY, "dash": "dot", "width": 1})
        figure.add_annotation(
            x=1, xref="paper", y=math.log10(noise), text=f"noise of {SHOTS:,} shots", showarrow=False, yanchor="bottom"
        )
        title, words = (
            "The signal along the circuit",
            "Median of |<Z_k>| over draws of theta; the circuit is simulated exactly.",
        )
    else:
        title = "The perturbation beside Adam's step, along the chain"
        words = "Median over blocks of the trained text model, lambda = 1: by what part of Adam's step Q moves qubit k."
    below = f" Below {FAINTEST:.0e} nothing is drawn." if shown else ""
    return CaptionedFigure(f"fading-{quantity.replace('_', '-')}", title, figure if shown else None, words + below)


def frontier_figure(
    costs: CircuitCosts, n_circuits: int, step_s: float | None, overhead: float, there: int
) -> CaptionedFigure:
    """Draw the most qubits that circuits may have, over the seconds of the training step that they slow down."""
    figure = apply_style(go.Figure(), 400)
    steps = np.geomspace(1e-3, 1e3, 49)
    for number, (name, engine, entangle) in enumerate(WAYS):
        ends = [_end(costs, engine, entangle, n_circuits, overhead * float(s)) for s in steps]
        points = [(float(s), end) for s, end in zip(steps, ends, strict=True) if end is not None and end.n_qubits > 0]
        if not points:
            continue
        colour = COLOURS[number]
        _band(figure, [s for s, _ in points], [e.low or 1 for _, e in points], [e.high for _, e in points], colour)
        figure.add_scatter(
            x=[s for s, _ in points],
            y=[end.n_qubits for _, end in points],
            customdata=[str(end.standing) for _, end in points],
            mode="lines",
            name=name,
            line={"color": colour, "width": 2},
            hovertemplate=f"{name}: %{{y:,}} qubits beside a step of %{{x:.3~g}} s, %{{customdata}}<extra></extra>",
        )
    most = memory_ends(there)
    figure.add_hline(y=most, line={"color": GREY, "dash": "dot", "width": 1})
    figure.add_annotation(
        x=0, xref="paper", y=math.log10(most), xanchor="left", yanchor="bottom", showarrow=False,
        text=f"memory ends: a state of {most} qubits",
    )  # fmt: skip
    if step_s is not None:
        figure.add_vline(x=step_s, line={"color": GREY, "dash": "dash", "width": 1})
    name_axes(figure, "seconds of a training step without circuits", "qubits")
    figure.update_xaxes(log_axis())
    figure.update_yaxes(log_axis())
    words = (
        f"The most qubits at which {n_circuits} circuits of depth 2, one core and nothing hidden, add at most "
        f"{100 * overhead:g} % to a step. Dashed: the step of the paper's text task. Bands: 95 %, of a new measurement."
    )
    return CaptionedFigure("frontier", "The frontier", figure if costs.fits else None, words)


def axis_of(fitted: FittedCurve) -> str:
    """Return the column along the horizontal axis."""
    curve = fitted.curve
    if curve.kind == "circuits":
        return str(curve.along)
    return {"optimizer": "n_parameters", "training": "n_tokens", "pool": "batch", "signal": "position"}[curve.kind]


def _end(costs: CircuitCosts, engine: Engine, entangle: Entangle, n_circuits: int, allowed_s: float) -> End | None:
    from qsgd_ray.limits._fits import ScalingError

    try:
        return overhead_ends(costs, engine, entangle, 2, n_circuits, allowed_s)
    except ScalingError:
        return None


def _signal_name(fitted: FittedCurve) -> str:
    curve = fitted.curve
    assert curve.kind == "signal"
    theta = "trained" if curve.theta == "trained" else f"sd {curve.theta:g}"
    return f"{curve.entangle}, depth {curve.depth}, θ {theta}"


def _line(figure: go.Figure, fitted: FittedCurve, rows: list[Row], column: str, colour: str) -> None:
    assert fitted.before is not None
    sizes = [row[column] for row in rows]
    between = np.geomspace(min(sizes), max(sizes), STEPS_BETWEEN) if min(sizes) > 0 else np.linspace(0, max(sizes))
    xs = sorted({*sizes, *(round(x) for x in between.tolist())})
    found = [fitted.law.predict(fitted.before, rows[0] | {column: x}) for x in xs]
    _band(figure, xs, [p.low for p in found], [p.high for p in found], colour)
    line = {"color": colour, "width": 1.5}
    figure.add_scatter(x=xs, y=[p.value for p in found], mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _band(figure: go.Figure, xs: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> None:
    figure.add_scatter(
        x=[*xs, *reversed(xs)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=transparent(colour, 0.16),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )


def _dots(figure: go.Figure, fitted: FittedCurve, rows: list[Row], colour: str, name: str) -> None:
    shown = [row for row in rows if row is not fitted.largest]
    figure.add_scatter(
        x=[size_of(fitted.curve, row) for row in shown],
        y=[row[fitted.law.quantity] for row in shown],
        mode="markers",
        name=name,
        marker={"color": colour, "size": 7},
        hovertemplate="%{x:,}: %{y:.3~g}<extra></extra>",
    )


def _diamond(figure: go.Figure, fitted: FittedCurve, largest: Row) -> None:
    assert fitted.held is not None
    figure.add_scatter(
        x=[size_of(fitted.curve, largest)],
        y=[largest[fitted.law.quantity]],
        mode="markers",
        name=f"held out, predicted {100 * fitted.held.error:+.0f} %".replace("-", "−"),
        marker={"color": COLOURS[4], "symbol": "diamond-open", "size": 12, "line": {"width": 2}},
        hovertemplate="%{x:,}: %{y:.3~g}, held out<extra></extra>",
    )


def _logarithmic(column: str, rows: list[Row]) -> bool:
    sizes = [row[column] for row in rows]
    return min(sizes) > 0 and max(sizes) >= 50 * min(sizes)


def _axis(values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis with a label a power of ten, or fewer; linear within a power of ten."""
    decades = math.log10(max(values) / min(values)) if min(values) > 0 else 0
    return log_axis() | {"dtick": max(1, math.ceil(decades / 6))} if decades >= 1 else {"rangemode": "tozero"}
