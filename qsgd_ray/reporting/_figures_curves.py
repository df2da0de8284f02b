"""Figures by epoch: result tables in; learning curves, and how large the perturbation was, out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa

from qsgd_ray.analysis.statistics import Floats
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting.plot_style import (
    GREY,
    MOST_LINES,
    Drawn,
    band,
    by_row,
    count,
    dress,
    looks,
    name_axes,
    numbers,
    powers,
    spread_out,
    thin,
    trajectories,
)
from qsgd_ray.results import StudyTables


def learning_curves(tables: StudyTables) -> Drawn:
    """Validation accuracy by epoch: interquartile mean and band over completed runs, thin lines for single runs."""
    figure, drawn, incomplete, empty, lines = dress(go.Figure(), 440), 0, 0, 0, 0
    target = 100 * tables.study.workload.target_accuracy
    figure.add_hline(y=target, line={"color": GREY, "dash": "dash", "width": 1.5})
    most = _lines_an_arm(len(tables.study.arms))
    means: dict[str, dict[float, float]] = {}
    for arm, look in looks(tables.study).items():
        runs = trajectories(tables, arm, lambda curve: numbers(curve, "validation_accuracy"))
        with_points = [(row, points) for row, points in runs if len(points.x)]
        empty, drawn = empty + len(runs) - len(with_points), drawn + len(with_points)
        for ended in (True, False):
            mine = [points for row, points in with_points if (row["ending"] == Ending.COMPLETED) == ended]
            shown = spread_out(mine, most if ended else max(1, most // 4))
            thin(figure, arm, look, shown, 100, whole=ended)
            lines += len(shown)
            if ended:
                means[arm] = band(figure, arm, look, mine, 100)
            else:
                incomplete += len(mine)
    accuracy = tables.study.workload.accuracy_name
    name_axes(figure, "epoch", f"validation {accuracy} (%)")
    return Drawn(
        "learning-curves",
        "How training went",
        figure if drawn else None,
        f"Validation {accuracy} of {count(drawn, 'confirmation run')}, a thin line each"
        f"{_shown(lines, drawn)}; thick lines are interquartile means of the completed runs with 95 % bootstrap bands, "
        f"the dashed line is the target of {target:g} %. Not in mean and band: {count(incomplete)} that did "
        f"not complete (dotted); left out: {count(empty)} without a measurement. A click on a name hides its arm.",
        by_row(
            f"Interquartile mean of validation {accuracy} in percent over the completed runs, at the epochs that "
            "all have.",
            "epoch",
            _epochs(means),
            means,
        ),
    )


def step_ratios(tables: StudyTables) -> Drawn:
    """|lambda * Q| over |Adam step| by epoch, for every arm that is perturbed."""
    figure, drawn, left_out, lines = dress(go.Figure(), 380), 0, 0, 0
    perturbed = {arm.name for arm in tables.study.arms if arm.perturbation is not None}
    most = _lines_an_arm(len(perturbed))
    means: dict[str, dict[float, float]] = {}
    for arm, look in looks(tables.study).items():
        runs = trajectories(tables, arm, _ratios) if arm in perturbed else []
        with_points = [(row, points) for row, points in runs if len(points.x)]
        left_out, drawn = left_out + len(runs) - len(with_points), drawn + len(with_points)
        for ended in (True, False):
            mine = [points for row, points in with_points if (row["ending"] == Ending.COMPLETED) == ended]
            shown = spread_out(mine, most if ended else max(1, most // 4))
            thin(figure, arm, look, shown, whole=ended)
            lines += len(shown)
        means[arm] = band(figure, arm, look, [points for _, points in with_points])
    name_axes(figure, "epoch", "|λQ| / |Adam step|")
    figure.update_yaxes(powers())
    figure.update_layout(showlegend=True)
    return Drawn(
        "step-ratio",
        "How large the perturbation was",
        figure if drawn else None,
        f"Length of the perturbation over the length of Adam's own step in {count(drawn, 'confirmation run')} of the "
        f"perturbed arms (thin{_shown(lines, drawn)}), and their interquartile mean with 95 % bootstrap band (thick). "
        f"At 10⁻³ the perturbation moves a step by a thousandth. Left out: {count(left_out)} without a ratio "
        "above zero.",
        by_row(
            "Interquartile mean of |λQ| / |Adam step|, at the epochs that all runs have.",
            "epoch",
            _epochs(means),
            means,
        ),
    )


def _ratios(curve: pa.Table) -> Floats:
    """|lambda * Q| / |Adam step|, NaN where it is not above zero: a logarithmic axis has no place for it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = numbers(curve, "perturbation_norm") / numbers(curve, "adam_step_norm")
    return np.where(found > 0, found, np.nan)


def _lines_an_arm(n_arms: int) -> int:
    return max(1, MOST_LINES // max(1, n_arms))


def _shown(lines: int, runs: int) -> str:
    return "" if lines == runs else f" for {lines} of them and {runs - lines} not drawn"


def _epochs(means: Mapping[str, Mapping[float, float]]) -> list[float]:
    return sorted({epoch for mean in means.values() for epoch in mean})
