"""The figure of the search: its trials in, a map of learning rate and lambda out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plotly.subplots import make_subplots

from qsgd_ray.analysis.metric import factor_of
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.analysis.trials import SearchTrial
from qsgd_ray.config import Metric
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting._formatting import MISSING, counted, metric_text
from qsgd_ray.reporting._metric_words import better_side
from qsgd_ray.reporting._plot_parts import MOST_ROWS, ArmStyle, arm_styles, lane_axis, without_legend
from qsgd_ray.reporting.plot_style import GREY, CaptionedFigure, NumberTable, apply_style, log_axis

# From blue over green to amber: neither end vanishes in a white or a black page.
_SCALE = ((0.0, "#3E5BA9"), (0.5, "#2A9D8F"), (1.0, "#E9A820"))
# More cover each other at their full size.
_MANY_TRIALS = 400


def search_figure(analysis: StudyAnalysis) -> CaptionedFigure:
    """Draw learning rate, lambda and validation value of every search trial; those without lambda in a strip below.

    Filled markers ran to the end, hollow ones were stopped early, grey crosses have no value.
    """
    by_arm, study, metric, label = analysis.search_trials, analysis.study, analysis.metric, analysis.metric_label
    trials = [trial for of_arm in by_arm.values() for trial in of_arm]
    plain = [arm for arm, of_arm in by_arm.items() if any(not trial.lambda_ for trial in of_arm)]
    strip = 2 if any(trial.lambda_ for trial in trials) else 1
    heights = [300, 40 + 30 * len(plain)][-strip:]
    figure = make_subplots(rows=strip, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    apply_style(figure, sum(heights) + 100)
    small = {"size": 5} if len(trials) > _MANY_TRIALS else {}
    for arm, style in arm_styles(study).items():
        if by_arm[arm]:
            marker = {"color": GREY, "symbol": style.marker, "size": 10}
            figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=arm)
        groups: dict[tuple[str, bool], list[SearchTrial]] = {}
        for trial in by_arm[arm]:
            groups.setdefault((_fill(trial), bool(trial.lambda_)), []).append(trial)
        for (fill, above), group in groups.items():
            figure.add_scatter(
                x=_five_digits(trial.learning_rate for trial in group),
                y=_five_digits(trial.lambda_ or plain.index(arm) for trial in group),
                mode="markers",
                marker=_marker(fill, group, style, metric) | small,
                customdata=[[trial.number, str(trial.ending), counted(trial.epochs, "epoch")] for trial in group],
                hovertemplate=f"{arm} %{{customdata[0]}}, %{{customdata[1]}} after %{{customdata[2]}}"
                f"<br>learning rate %{{x:.3~g}}, {metric.name} %{{marker.color:.4~g}}<extra></extra>",
                row=1 if above else strip,
                col=1,
                **without_legend(),
            )
    if strip == 2:
        figure.update_yaxes(log_axis() | {"title": {"text": "λ"}}, row=1, col=1)
    if plain:
        lane_axis(figure, plain, row=strip, col=1)
        figure.update_yaxes(title={"text": "no λ"}, row=strip, col=1)
    figure.update_xaxes(log_axis())
    figure.update_xaxes(title={"text": "learning rate"}, row=strip, col=1)
    bar = {"title": {"text": _bar_title(metric), "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    values = [factor_of(metric) * trial.value for trial in trials if trial.value is not None]
    edges = {"cmin": min(values, default=0), "cmax": max(values, default=1)}
    turned = {"reversescale": True} if metric.direction == "min" else {}
    figure.update_layout(coloraxis={"colorscale": _SCALE, **edges, **turned, "colorbar": bar}, showlegend=True)
    return CaptionedFigure(
        "search",
        "Where the search looked",
        figure if trials else None,
        f"{counted(len(trials), 'search trial')}: colour is the final validation {label}, "
        "shape the arm; filled ran to "
        f"the end, hollow were stopped early.{better_side(metric)} Without a colour: "
        f"{counted(len(trials) - len(values), 'trial')} that diverged, failed, were lost or have no {metric.name} "
        "(grey crosses).",
        _best_trials(by_arm, metric, label),
    )


def _best_trials(by_arm: Mapping[str, Sequence[SearchTrial]], metric: Metric, label: str) -> NumberTable:
    """Return the best trials of the arms, as many of each."""
    most, rows = max(1, MOST_ROWS // len(by_arm)), []
    for arm, trials in by_arm.items():
        coloured = [(trial.value, trial) for trial in trials if trial.value is not None]
        rows += [
            [
                arm,
                str(trial.number),
                f"{trial.learning_rate:.3g}",
                f"{trial.lambda_:.3g}" if trial.lambda_ else MISSING,
                metric_text(value, metric),
                trial.ending.replace("_", " "),
            ]
            for value, trial in sorted(coloured, key=lambda pair: -metric.sign * pair[0])[:most]
        ]
    description = f"The best {most} search trials of each arm, or all, by validation {label}."
    columns = [
        "arm",
        "number",
        "learning rate",
        "λ",
        f"validation {label} {'%' if metric.kind == 'share' else metric.unit}".rstrip(),
        "ending",
    ]
    return NumberTable(description, columns, rows)


def _fill(trial: SearchTrial) -> str:
    if trial.value is None:
        return "grey"
    return "hollow" if trial.ending == Ending.STOPPED_EARLY else "filled"


def _marker(fill: str, trials: Sequence[SearchTrial], style: ArmStyle, metric: Metric) -> dict[str, Any]:
    if fill == "grey":
        return {"color": GREY, "symbol": "x-thin-open", "size": 9, "line": {"width": 2}}
    values = _five_digits(factor_of(metric) * trial.value for trial in trials if trial.value is not None)
    colour = {"color": values, "coloraxis": "coloraxis"}
    if fill == "hollow":
        return {**colour, "symbol": f"{style.marker}-open", "size": 10, "line": {"width": 2}}
    return {**colour, "symbol": style.marker, "size": 11, "line": {"color": GREY, "width": 0.8}}


def _five_digits(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _bar_title(metric: Metric) -> str:
    unit = "%" if metric.kind == "share" else metric.unit
    return f"val. {unit}".rstrip()
