"""Figures by epoch: curves of the analysis in; learning curves, and the size of the perturbation, out."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from qsgd_ray.analysis.metric import factor_of
from qsgd_ray.analysis.statistics import evenly_spaced
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.reporting._formatting import counted, target_text
from qsgd_ray.reporting._metric_words import better_side, in_unit, of_unit, value_unit
from qsgd_ray.reporting._plot_parts import (
    MOST_LINES,
    add_mean_curve,
    add_single_runs,
    arm_styles,
    number_table,
)
from qsgd_ray.reporting.plot_style import GREY, CaptionedFigure, apply_style, log_axis, name_axes


def learning_curves_figure(analysis: StudyAnalysis) -> CaptionedFigure:
    """Draw the metric of validation data by epoch: mean and band over completed runs, thin lines for single runs."""
    study = analysis.study
    figure, drawn, incomplete, empty, lines = apply_style(go.Figure(), 440), 0, 0, 0, 0
    metric, label = analysis.metric, analysis.metric_label
    dashed = ""
    if metric.target is not None:
        figure.add_hline(y=factor_of(metric) * metric.target, line={"color": GREY, "dash": "dash", "width": 1.5})
        dashed = f", the dashed line is the target of {target_text(metric)}"
    most = _most_lines_per_arm(len(study.arms))
    styles = arm_styles(study)
    means: dict[str, dict[float, float]] = {}
    for curves in analysis.learning_curves:
        style = styles[curves.arm]
        empty, drawn = empty + curves.n_empty, drawn + len(curves.runs)
        for complete in (True, False):
            runs = [run for run in curves.runs if run.is_complete == complete]
            shown = evenly_spaced(runs, most if complete else max(1, most // 4))
            add_single_runs(figure, curves.arm, style, shown, complete=complete)
            lines += len(shown)
            if complete:
                means[curves.arm] = add_mean_curve(figure, curves.arm, style, curves.mean)
            else:
                incomplete += len(runs)
    name_axes(figure, "epoch", in_unit(f"validation {label}", metric))
    return CaptionedFigure(
        "learning-curves",
        "How training went",
        figure if drawn else None,
        f"Validation {label} of {counted(drawn, 'confirmation run')}, a thin line each"
        f"{_not_drawn(lines, drawn)}; thick lines are interquartile means of the completed runs with 95 % bootstrap "
        f"bands{dashed}.{better_side(metric)} Not in mean and band: {counted(incomplete)} that did "
        f"not complete (dotted); left out: {counted(empty)} without a measurement. A click on a name hides its arm.",
        number_table(
            f"Interquartile mean of validation {label}{of_unit(value_unit(metric))} over the completed runs, at the "
            "epochs that all have.",
            "epoch",
            _epochs(means),
            means,
        ),
    )


def step_ratio_figure(analysis: StudyAnalysis) -> CaptionedFigure:
    """Draw |lambda * Q| over |Adam step| by epoch, for every arm that is perturbed."""
    study = analysis.study
    figure, drawn, left_out, lines = apply_style(go.Figure(), 380), 0, 0, 0
    most = _most_lines_per_arm(sum(arm.perturbation is not None for arm in study.arms))
    styles = arm_styles(study)
    means: dict[str, dict[float, float]] = {}
    for curves in analysis.step_ratio_curves:
        style = styles[curves.arm]
        left_out, drawn = left_out + curves.n_empty, drawn + len(curves.runs)
        for complete in (True, False):
            runs = [run for run in curves.runs if run.is_complete == complete]
            shown = evenly_spaced(runs, most if complete else max(1, most // 4))
            add_single_runs(figure, curves.arm, style, shown, complete=complete)
            lines += len(shown)
        means[curves.arm] = add_mean_curve(figure, curves.arm, style, curves.mean)
    name_axes(figure, "epoch", "|λQ| / |Adam step|")
    figure.update_yaxes(log_axis())
    figure.update_layout(showlegend=True)
    return CaptionedFigure(
        "step-ratio",
        "How large the perturbation was",
        figure if drawn else None,
        f"Length of the perturbation over the length of Adam's own step in {counted(drawn, 'confirmation run')} of the "
        f"perturbed arms (thin{_not_drawn(lines, drawn)}), and their interquartile mean with 95 % bootstrap band "
        f"(thick). At 10⁻³ the perturbation moves a step by a thousandth. Left out: {counted(left_out)} without a "
        "ratio above zero.",
        number_table(
            "Interquartile mean of |λQ| / |Adam step|, at the epochs that all runs have.",
            "epoch",
            _epochs(means),
            means,
        ),
    )


def _most_lines_per_arm(n_arms: int) -> int:
    return max(1, MOST_LINES // max(1, n_arms))


def _not_drawn(lines: int, runs: int) -> str:
    return "" if lines == runs else f" for {lines} of them and {runs - lines} not drawn"


def _epochs(means: Mapping[str, Mapping[float, float]]) -> list[float]:
    return sorted({epoch for mean in means.values() for epoch in mean})
