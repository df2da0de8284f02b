"""Figures of the confirmation: a `StudyAnalysis` in; differences, test values, profiles and times to target out.

Captions say which rows are drawn and how many are left out for want of a number.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from qsgd_ray.analysis.metric import factor_of, unit_of
from qsgd_ray.analysis.statistics import evenly_spaced
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.config import Metric
from qsgd_ray.reporting._formatting import counted, target_text
from qsgd_ray.reporting._metric_words import better_side, in_unit, of_unit, value_unit
from qsgd_ray.reporting._plot_parts import (
    FAINT,
    LEAST_VIOLIN,
    MANY,
    SHADE,
    ArmStyle,
    add_dots,
    add_profile,
    add_violin,
    add_whisker,
    arm_styles,
    joined,
    lane_axis,
    lanes,
    number_table,
    without_legend,
)
from qsgd_ray.reporting.plot_style import GREY, CaptionedFigure, apply_style, name_axes


def paired_differences_figure(analysis: StudyAnalysis) -> CaptionedFigure:
    """Draw each seed's difference, the mean with its intervals, and the margin of equivalence as a band."""
    study, verdicts, styles = analysis.study, analysis.verdicts, arm_styles(analysis.study)
    metric, label, unit = analysis.metric, analysis.metric_label, unit_of(analysis.metric)
    figure = lanes([v.arm for v in verdicts])
    margin = factor_of(metric) * study.decision.margin
    figure.add_vrect(x0=-margin, x1=margin, fillcolor=SHADE, line_width=0, layer="below")
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    by_arm = {results.arm: results.differences for results in analysis.seeds}
    shown = {v.arm: by_arm[v.arm] for v in verdicts}
    drawn = sum(map(len, shown.values()))
    for i, v in enumerate(verdicts):
        add_dots(figure, v.arm, styles[v.arm], i - 0.16, shown[v.arm])
        if v.difference is not None:
            add_whisker(
                figure, v.arm, styles[v.arm], metric, i + 0.18, v.difference, v.interval, v.equivalence_interval
            )
    name_axes(figure, f"difference to the baseline ({unit})" if unit else "difference to the baseline", None)
    level = 100 * (1 - study.decision.alpha)
    return CaptionedFigure(
        "paired-differences",
        "Differences to the baseline",
        figure if drawn else None,
        f"{counted(drawn, 'complete pair')} of confirmation runs by test {label}, a small "
        "marker each; the larger is "
        f"the mean with its {level:g} % interval, whose thick part is the {2 * level - 100:g} % interval of the "
        f"equivalence test; the shaded band is the margin of equivalence.{better_side(metric)} Left out: "
        f"{counted(sum(v.n_lost for v in verdicts), 'pair')} with a run that has no result, "
        f"{sum(v.n_pending for v in verdicts)} still to run.",
        number_table(
            f"Difference{of_unit(unit)} of test {label} at each seed; – is a pair without.",
            "seed",
            study.confirm.seeds,
            shown,
        ),
    )


def final_accuracy_figure(analysis: StudyAnalysis) -> CaptionedFigure:
    """Draw the test value of every seed, seeds joined across arms, and the interquartile mean with its interval."""
    study, summaries, styles = analysis.study, analysis.summaries, arm_styles(analysis.study)
    names = [s.arm for s in summaries]
    figure = lanes(names)
    metric, label = analysis.metric, analysis.metric_label
    values = {results.arm: results.values for results in analysis.seeds}
    seeds = study.confirm.seeds
    paths = [
        [(values[name][seed], i - 0.16) for i, name in enumerate(names) if seed in values[name]]
        for seed in evenly_spaced(seeds, MANY)
    ]
    figure.add_scatter(
        x=joined(np.array([x for x, _ in path]) for path in paths),
        y=joined(np.array([y for _, y in path]) for path in paths),
        mode="lines",
        line={"color": FAINT, "width": 1},
        hoverinfo="skip",
        **without_legend(),
    )
    for i, s in enumerate(summaries):
        add_violin(figure, styles[s.arm], i, list(values[s.arm].values()))
        add_dots(figure, s.arm, styles[s.arm], i - 0.16, values[s.arm])
        if s.iqm is not None:
            add_whisker(figure, s.arm, styles[s.arm], metric, i + 0.18, s.iqm, s.iqm_interval)
    name_axes(figure, in_unit(f"test {label}", metric), None)
    return CaptionedFigure(
        "final-accuracy",
        "Where the arms ended",
        figure if any(values.values()) else None,
        f"Test {label} of {counted(sum(map(len, values.values())), 'completed confirmation run')}; grey lines join "
        f"the same seed across arms{_of_many(len(seeds))}. The larger marker is the interquartile mean with its "
        f"95 % bootstrap interval; a hill shows where a lane's runs lie, from {LEAST_VIOLIN} on."
        f"{better_side(metric)} Left out: {counted(sum(s.n_null for s in summaries))} without a test {label}.",
        number_table(f"Test {label}{of_unit(value_unit(metric))} at each seed; – has none.", "seed", seeds, values),
    )


def profiles_figure(analysis: StudyAnalysis) -> CaptionedFigure:
    """Draw the share of each arm's runs that reach a value of the metric, over the values, with a band at each."""
    profiles, metric, label = analysis.profiles, analysis.metric, analysis.metric_label
    figure = apply_style(go.Figure(), 400)
    thresholds = [factor_of(metric) * threshold for threshold in profiles.thresholds]
    reached: dict[str, dict[float, float]] = {}
    for arm, style in arm_styles(analysis.study).items():
        profile = profiles.by_arm.get(arm)
        if profile is not None and thresholds:
            add_profile(figure, arm, style, profile, metric)
            reached[arm] = dict(zip(thresholds, (100 * profile.share).tolist(), strict=True))
    name = metric.name.replace("_", " ")
    name_axes(figure, in_unit(f"test {label}", metric), "runs that reach it (%)")
    figure.update_yaxes(range=[-3, 103])
    figure.update_layout(showlegend=True)
    nulls = [f"{profile.n_null} of {arm}" for arm, profile in profiles.by_arm.items() if profile.n_null]
    n_ended = sum(profile.n for profile in profiles.by_arm.values())
    return CaptionedFigure(
        "performance-profiles",
        f"How many runs reach which {name}",
        figure if thresholds else None,
        f"{counted(n_ended, 'confirmation run')} by test {label}{_reached(metric)}; the higher line is the better one, "
        f"bands are 95 % intervals at each {name}. Without a result: {', '.join(nulls) or 'no run'}; what diverged or "
        f"failed reaches no {name}, so its arm's line {_of_lost_runs(metric)} 100 %. Left out: "
        f"{counted(profiles.n_lost)} lost with a process, which the study tries again. A click on a name "
        "hides its arm.",
        number_table(
            f"Runs in percent that reach a test {label} of so {_many(metric)}.",
            f"{label} {'%' if metric.kind == 'share' else metric.unit}".rstrip(),
            thresholds,
            reached,
        ),
    )


def time_to_target_figure(analysis: StudyAnalysis) -> CaptionedFigure:
    """Draw epochs and seconds until the target: hits as points, misses as crosses at the end of their run."""
    study, summaries, styles = analysis.study, analysis.summaries, arm_styles(analysis.study)
    names = [s.arm for s in summaries]
    target = target_text(analysis.metric)
    height = 3 * (34 * len(names) + 70)
    figure = apply_style(make_subplots(rows=3, cols=1, vertical_spacing=70 / height), height)
    for panel, title in enumerate(("epochs", "seconds", "seconds without circuits,"), start=1):
        for i, (s, seeds) in enumerate(zip(summaries, analysis.seeds, strict=True)):
            clock = (seeds.epochs, seeds.seconds, seeds.seconds_without_circuits)[panel - 1]
            median = (s.epochs_to_target, s.seconds_to_target, s.seconds_to_target_circuits_free)[panel - 1].median
            style = styles[s.arm]
            add_dots(figure, s.arm, style, i, clock.hits, row=panel, col=1)
            cross = ArmStyle(style.colour, "x-thin-open")
            add_dots(figure, f"{s.arm} missed", cross, i, clock.misses, row=panel, col=1)
            if median is not None:
                line = {"color": style.colour, "width": 3}
                bar = {"x": [median, median], "y": [i - 0.36, i + 0.36], "mode": "lines", "line": line}
                hover = f"{s.arm}, median: %{{x:.3~g}}<extra></extra>"
                figure.add_scatter(**bar, hovertemplate=hover, row=panel, col=1, **without_legend())
        lane_axis(figure, names, row=panel, col=1)
        figure.update_xaxes(title={"text": f"{title} to {target}"}, rangemode="tozero", row=panel, col=1)
    hits = sum(len(seeds.epochs.hits) for seeds in analysis.seeds)
    misses = sum(len(seeds.epochs.misses) for seeds in analysis.seeds)
    return CaptionedFigure(
        "time-to-target",
        "Time to target",
        figure if hits + misses else None,
        f"{counted(hits, 'confirmation run')} that reached {target} validation {analysis.metric_label} (filled) and "
        f"{misses} that did not (crosses, at the end of the run: the true time is later, or never). An upright bar "
        "is the median with misses later than every hit; without a bar the median run missed. Left out: "
        f"{counted(sum(seeds.n_unmeasured for seeds in analysis.seeds))} without a measurement.",
        number_table(
            f"Epochs to {target} at each seed; – is a run without a measurement.",
            "seed",
            study.confirm.seeds,
            {seeds.arm: seeds.epochs.hits | dict.fromkeys(seeds.epochs.misses, "missed") for seeds in analysis.seeds},
        ),
    )


def _of_many(n_seeds: int) -> str:
    return "" if n_seeds <= MANY else f" for {MANY} of {n_seeds} seeds"


def _reached(metric: Metric) -> str:
    """Return when a run reaches a value of which less is better; more is what a reader expects."""
    return "" if metric.direction == "max" else ", which a run reaches from above"


def _of_lost_runs(metric: Metric) -> str:
    return "begins below" if metric.direction == "max" else "ends below"


def _many(metric: Metric) -> str:
    return f"many {unit}" if (unit := value_unit(metric)) else "much"
