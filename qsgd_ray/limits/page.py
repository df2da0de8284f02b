"""Report a study of limits: the page limits.html, sentences and a table for the terminal, a section of other pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qsgd_ray.config import TextTask
from qsgd_ray.limits._curves import SECONDS, FittedCurve, fitted_curves
from qsgd_ray.limits._fits import ScalingError
from qsgd_ray.limits._frontier import CircuitCosts, End, circuit_costs, fading, memory_ends, overhead_ends
from qsgd_ray.limits.rows import LimitsResults, LimitsTables
from qsgd_ray.reporting.html import figure_values, leaves_as_text, render

_WORDS = {
    SECONDS: "seconds",
    "peak_bytes": "memory",
    "error": "error of <Z>",
    "kept": "what noise leaves",
    "signal": "|<Z_k>|",
    "step_ratio": "|λQ_k| / |Adam's step_k|",
}


@dataclass(frozen=True)
class _PredictionRow:
    """A held-out size in words. `within`: as near as the study's tolerance asks."""

    curve: str
    quantity: str
    sizes: int
    largest: str
    measured: str
    predicted: str
    interval: str
    error: str
    scatter: str
    within: bool


def print_limits(results: LimitsResults, console: Console) -> None:
    """Write the page, and print the table of predictions and the sentences.

    Args:
        results: the study's results.
        console: where to print.
    """
    tables = results.read()
    fitted = fitted_curves(tables)
    page = _write_page(results, tables, fitted)
    console.print(_prediction_table(tables, fitted))
    for sentence in _sentences(tables, fitted):
        console.print(Text(sentence), soft_wrap=True)
    console.print(f"Report: {page}", soft_wrap=True, highlight=False, markup=False)


def _write_page(results: LimitsResults, tables: LimitsTables, fitted: list[FittedCurve]) -> Path | str:
    """Write `limits.html` beside the rows, replaced whole; return where it is."""
    from qsgd_ray.limits._figures import fit_figure
    from qsgd_ray.reporting.plot_style import CaptionedFigure

    fits = [
        CaptionedFigure(
            f"fit-{number}", f"{one.curve.name}: {_WORDS[one.law.quantity]}", fit_figure(one), _caption(one)
        )
        for number, one in enumerate(fitted)
    ]
    page = render(
        "limits.html.j2",
        {
            **_content(tables, fitted),
            "limits": tables.limits,
            "fits": [figure_values(fit) for fit in fits],
            "provenance": list(leaves_as_text(tables.provenance)),
        },
    )
    results.storage.put("limits.html", page.encode())
    return results.storage.location("limits.html")


def section(results: LimitsResults, page: str) -> dict[str, Any]:
    """Return the content of the section on limits in another study's page.

    Args:
        results: the limits' results.
        page: link from the other page to that of the limits.
    """
    tables = results.read()
    fitted = fitted_curves(tables)
    measured = [row["measured_at"] for row in tables.sizes.to_pylist()]
    return {
        **_content(tables, fitted),
        "name": tables.limits.name,
        "measured": f"{max(measured):%Y-%m-%d}" if measured else "not yet",
        "page": page,
    }


def _content(tables: LimitsTables, fitted: list[FittedCurve]) -> dict[str, Any]:
    """Return the content that both pages show: where the method ends, and how well that is known."""
    from qsgd_ray.limits._figures import fading_figure, frontier_figure

    step = _training_step(tables)
    memory = int(tables.provenance["hardware"]["memory_bytes"])
    overhead = tables.limits.overhead
    drawn = [
        frontier_figure(circuit_costs(tables), step[1] if step else 1, step and step[0], overhead, memory),
        fading_figure(fitted, "signal"),
        fading_figure(fitted, "step_ratio"),
    ]
    return {
        "sentences": _sentences(tables, fitted),
        "figures": [figure_values(one) for one in drawn],
        "predictions": _prediction_rows(tables, fitted),
        "tolerance": tables.limits.tolerance,
        "unfitted": _unfitted(fitted),
    }


def _sentences(tables: LimitsTables, fitted: list[FittedCurve]) -> list[str]:
    """Return where the method ends, in sentences, the frontier first."""
    costs, text = circuit_costs(tables), []
    if step := _training_step(tables):
        text.append(_frontier(tables, costs, *step))
    memory = int(tables.provenance["hardware"]["memory_bytes"])
    text.append(
        f"Memory ends whole states at {memory_ends(memory)} qubits ({memory / 2**30:,.3g} GiB); the chain in linear "
        "time has no such end."
    )
    text.extend(
        f"In the trained text model, depth {one.curve.depth}, lambda * Q is {one.rows[0]['step_ratio']:.1g} of Adam's "
        f"step at qubit {one.rows[0]['position']} for lambda = 1, and halves every {fade.halves_every:.2g} qubits."
        for one in fitted
        if one.curve.kind == "signal" and one.law.quantity == "step_ratio" and (fade := fading(one))
    )
    rows = _prediction_rows(tables, fitted)
    missed = [f"{row.curve} ({row.quantity}, {row.error})" for row in rows if not row.within]
    if rows:
        text.append(
            f"Of {len(rows)} held-out sizes {len(rows) - len(missed)} were predicted within "
            f"{100 * tables.limits.tolerance:g} %" + (f"; missed: {', '.join(missed)}." if missed else ".")
        )
    return text


def _training_step(tables: LimitsTables) -> tuple[float, int] | None:
    """Return the seconds of a step of the text task, and its tensors: as many circuits it has at scope tensor."""
    length = TextTask().length
    rows = [row for row in tables.sizes.to_pylist() if row["kind"] == "training"]
    found = next((row for row in rows if row["n_tokens"] == length), None)
    return None if found is None else (found[SECONDS], found["n_tensors"])


def _prediction_rows(tables: LimitsTables, fitted: list[FittedCurve]) -> list[_PredictionRow]:
    """Return every held-out size, in the study's order."""
    rows = []
    for one in fitted:
        if one.held is None or one.before is None or one.largest is None:
            continue
        held, formatted = one.held, _unit(one.law.quantity)
        row = one.largest
        largest = f"{row['batch']:,} on {row['n_actors']}" if one.curve.kind == "pool" else f"{row[_column(one)]:,}"
        rows.append(
            _PredictionRow(
                one.curve.name,
                _WORDS[one.law.quantity],
                len(one.rows),
                largest,
                formatted(held.measured),
                formatted(held.predicted.value),
                f"{formatted(held.predicted.low)} to {formatted(held.predicted.high)}",
                f"{100 * held.error:+.1f} %".replace("-", "−"),
                f"{100 * one.before.scatter:.1f} %",
                abs(held.error) <= tables.limits.tolerance,
            )
        )
    return rows


def _unfitted(fitted: list[FittedCurve]) -> list[str]:
    """Return the curves without a fit, each with its reason."""
    return [f"{one.curve.name} ({_WORDS[one.law.quantity]}): {one.why_not}" for one in fitted if one.why_not]


def _prediction_table(tables: LimitsTables, fitted: list[FittedCurve]) -> Table:
    """Return the predictions as a table for the terminal."""
    table = Table(title="Largest sizes, predicted", title_style="bold", title_justify="left", box=SIMPLE_HEAD)
    for column in ("curve", "of what", "largest", "measured", "predicted", "error"):
        table.add_column(column, justify="left" if column in ("curve", "of what") else "right", overflow="fold")
    for row in _prediction_rows(tables, fitted):
        style = "green" if row.within else "bold red"
        cells = (Text(row.curve), Text(row.quantity), row.largest, row.measured, row.predicted)
        table.add_row(*cells, Text(row.error, style=style))
    return table


def _caption(one: FittedCurve) -> str:
    """Return the formula, its coefficients and its scatter, in words."""
    if one.fit is None:
        return f"No fit: {one.why_not}."
    numbers = ", ".join(f"{value:.3g}" for value in one.fit.coefficients)
    knee = f", work beyond {one.fit.knee:.3g} dearer" if one.fit.knee else ""
    return f"{one.law.words}: {numbers}{knee}. Scatter {100 * one.fit.scatter:.1f} %, {len(one.rows)} sizes."


def _frontier(tables: LimitsTables, costs: CircuitCosts, step_s: float, n_circuits: int) -> str:
    allowed_s = tables.limits.overhead * step_s

    def end(engine: Any, entangle: str) -> str:
        try:
            found: End = overhead_ends(costs, engine, entangle, 2, n_circuits, allowed_s)
        except ScalingError:
            return "not measured"
        return f"{found.n_qubits:,} qubits ({found.low:,} to {found.high:,}; {found.standing})"

    return (
        f"A step of the paper's text task takes {1e3 * step_s:.3g} ms on one core here. Its {n_circuits} circuits of "
        f"depth 2, on that core with nothing hidden, add {100 * tables.limits.overhead:g} % at {end('torch', 'ring')} "
        f"as whole states of a ring, and at {end('chain', 'chain')} as chains in linear time."
    )


def _column(one: FittedCurve) -> str:
    from qsgd_ray.limits._figures import axis_of

    return axis_of(one)


def _unit(quantity: str) -> Any:
    if quantity == SECONDS:
        return lambda s: f"{s:.3g} s" if s >= 1 else f"{1e3 * s:.3g} ms"
    if quantity == "peak_bytes":
        return lambda n: f"{n / 2**20:.3g} MiB"
    return lambda x: f"{x:.3g}"
