"""The figures of a report: result tables in, one `Drawn` (title, plotly figure, caption) a question out.

Captions say which rows are drawn and how many are left out for want of a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from qsgd_ray.analysis.profile import performance_profile
from qsgd_ray.analysis.summary import ArmSummary, Row, confirm_rows, result
from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting._figures_curves import learning_curves, step_ratios
from qsgd_ray.reporting.plot_style import (
    FAINT,
    GREY,
    LEAST_VIOLIN,
    MANY,
    MOST_LINES,
    SHADE,
    Drawn,
    Look,
    by_row,
    count,
    dots,
    dress,
    joined,
    lane_axis,
    lanes,
    looks,
    name_axes,
    silent,
    spread_out,
    steps,
    violin,
    whisker,
)
from qsgd_ray.results import StudyTables


def draw(tables: StudyTables, verdicts: Sequence[ArmVerdict], summaries: Sequence[ArmSummary]) -> list[Drawn]:
    """Every figure of the report, in reading order."""
    return [
        paired_differences(tables, verdicts),
        final_accuracy(tables, summaries),
        performance_profiles(tables),
        learning_curves(tables),
        time_to_target(tables, summaries),
        step_ratios(tables),
    ]


def paired_differences(tables: StudyTables, verdicts: Sequence[ArmVerdict]) -> Drawn:
    """Each seed's difference in test accuracy, the mean with its intervals, the margin of equivalence as a band."""
    study, look = tables.study, looks(tables.study)
    figure = lanes([v.arm for v in verdicts])
    figure.add_vrect(
        x0=-100 * study.decision.margin, x1=100 * study.decision.margin, fillcolor=SHADE, line_width=0, layer="below"
    )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    baseline, drawn = _accuracies(tables, study.baseline), 0
    shown: dict[str, dict[int, float]] = {}
    for i, v in enumerate(verdicts):
        points = {seed: x - baseline[seed] for seed, x in _accuracies(tables, v.arm).items() if seed in baseline}
        drawn, shown[v.arm] = drawn + len(points), points
        dots(figure, v.arm, look[v.arm], i - 0.16, points)
        if v.difference is not None:
            whisker(figure, v.arm, look[v.arm], i + 0.18, v.difference, v.interval, v.equivalence_interval)
    name_axes(figure, "difference to the baseline (points)", None)
    level = 100 * (1 - study.decision.alpha)
    return Drawn(
        "paired-differences",
        "Differences to the baseline",
        figure if drawn else None,
        f"{count(drawn, 'complete pair')} of confirmation runs by test {study.workload.accuracy_name}, a small marker "
        "each; the larger is "
        f"the mean with its {level:g} % interval, whose thick part is the {2 * level - 100:g} % interval of the "
        "equivalence test; the shaded band is the margin of equivalence. Left out: "
        f"{count(sum(v.n_lost for v in verdicts), 'pair')} with a run that has no result, "
        f"{sum(v.n_pending for v in verdicts)} still to run.",
        by_row(
            f"Difference in points of test {study.workload.accuracy_name} at each seed; – is a pair without.",
            "seed",
            study.confirm.seeds,
            shown,
        ),
    )


def final_accuracy(tables: StudyTables, summaries: Sequence[ArmSummary]) -> Drawn:
    """Test accuracy of every seed, seeds joined across arms, and the interquartile mean with its interval."""
    names, look = [s.arm for s in summaries], looks(tables.study)
    figure, values = lanes(names), {name: _accuracies(tables, name) for name in names}
    seeds = tables.study.confirm.seeds
    paths = [
        [(values[name][seed], i - 0.16) for i, name in enumerate(names) if seed in values[name]]
        for seed in spread_out(seeds, MANY)
    ]
    figure.add_scatter(
        x=joined(np.array([x for x, _ in path]) for path in paths),
        y=joined(np.array([y for _, y in path]) for path in paths),
        mode="lines",
        line={"color": FAINT, "width": 1},
        hoverinfo="skip",
        **silent(),
    )
    for i, s in enumerate(summaries):
        violin(figure, look[s.arm], i, list(values[s.arm].values()))
        dots(figure, s.arm, look[s.arm], i - 0.16, values[s.arm])
        if s.iqm is not None:
            whisker(figure, s.arm, look[s.arm], i + 0.18, s.iqm, s.iqm_interval)
    accuracy = tables.study.workload.accuracy_name
    name_axes(figure, f"test {accuracy} (%)", None)
    return Drawn(
        "final-accuracy",
        "Where the arms ended",
        figure if any(values.values()) else None,
        f"Test {accuracy} of {count(sum(map(len, values.values())), 'completed confirmation run')}; grey lines join "
        f"the same seed across arms{_of_many(len(seeds))}. The larger marker is the interquartile mean with its "
        f"95 % bootstrap interval; a hill shows where a lane's runs lie, from {LEAST_VIOLIN} on. Left out: "
        f"{count(sum(s.n_null for s in summaries))} without a test {accuracy}.",
        by_row(f"Test {accuracy} in percent at each seed; – has none.", "seed", seeds, values),
    )


def performance_profiles(tables: StudyTables) -> Drawn:
    """The share of each arm's runs that reach an accuracy, over the accuracies, with a band at each."""
    scores = {
        arm.name: [result(row) for row in confirm_rows(tables, arm.name) if row["ending"] != Ending.LOST]
        for arm in tables.study.arms
    }
    rows = sum(len(confirm_rows(tables, name)) for name in scores)
    ended, results = sum(map(len, scores.values())), sorted({x for s in scores.values() for x in s if x is not None})
    figure = dress(go.Figure(), 400)
    pad = max(0.05 * (results[-1] - results[0]), 0.002) if results else 0.0
    thresholds = [results[0] - pad, *spread_out(results, MOST_LINES), results[-1] + pad] if results else []
    at, reached = [100 * x for x in thresholds], {}
    for arm, look in looks(tables.study).items():
        profile = performance_profile(scores[arm], thresholds)
        if profile is not None and results:
            steps(figure, arm, look, profile, 100)
            reached[arm] = dict(zip(at, (100 * profile.share).tolist(), strict=True))
    accuracy = tables.study.workload.accuracy_name
    name_axes(figure, f"test {accuracy} (%)", "runs that reach it (%)")
    figure.update_yaxes(range=[-3, 103])
    figure.update_layout(showlegend=True)
    nulls = [f"{scores[arm].count(None)} of {arm}" for arm in scores if None in scores[arm]]
    return Drawn(
        "performance-profiles",
        "How many runs reach which accuracy",
        figure if results else None,
        f"{count(ended, 'confirmation run')} by test {accuracy}; the higher line is the better one, bands are 95 % "
        f"intervals at each accuracy. Without a result: {', '.join(nulls) or 'no run'}; what diverged or failed "
        f"reaches no accuracy, so its arm's line begins below 100 %. Left out: {count(rows - ended)} lost with a "
        "process, which the study tries again. A click on a name hides its arm.",
        by_row(f"Runs in percent that reach a test {accuracy} of so many percent.", f"{accuracy} %", at, reached),
    )


def time_to_target(tables: StudyTables, summaries: Sequence[ArmSummary]) -> Drawn:
    """Epochs and seconds until the target: hits as points, misses as crosses at the end of their run (censored)."""
    names, look = [s.arm for s in summaries], looks(tables.study)
    target, accuracy = 100 * tables.study.workload.target_accuracy, tables.study.workload.accuracy_name
    height = 3 * (34 * len(names) + 70)
    figure = dress(make_subplots(rows=3, cols=1, vertical_spacing=70 / height), height)
    rows = {name: confirm_rows(tables, name) for name in names}
    for panel, (title, column, end, wait) in enumerate(
        (
            ("epochs", "epochs_to_target", "epochs_run", None),
            ("seconds", "seconds_to_target", "wall_s", None),
            ("seconds without circuits,", "seconds_to_target", "wall_s", "circuit_wait_s"),
        ),
        start=1,
    ):
        for i, s in enumerate(summaries):
            hit = {r["seed"]: _clock(r, column, wait and f"{wait}_to_target") for r in rows[s.arm] if _hit(r)}
            missed = {r["seed"]: _clock(r, end, wait) for r in rows[s.arm] if _missed(r)}
            dots(figure, s.arm, look[s.arm], i, hit, row=panel, col=1)
            dots(figure, f"{s.arm} missed", Look(look[s.arm].colour, "x-thin-open"), i, missed, row=panel, col=1)
            median = (s.epochs_to_target, s.seconds_to_target, s.seconds_to_target_circuits_free)[panel - 1].median
            if median is not None:
                line = {"color": look[s.arm].colour, "width": 3}
                bar = {"x": [median, median], "y": [i - 0.36, i + 0.36], "mode": "lines", "line": line}
                figure.add_scatter(
                    **bar, hovertemplate=f"{s.arm}, median: %{{x:.3~g}}<extra></extra>", row=panel, col=1, **silent()
                )
        lane_axis(figure, names, row=panel, col=1)
        figure.update_xaxes(title={"text": f"{title} to {target:g} %"}, rangemode="tozero", row=panel, col=1)
    flat = [r for of_arm in rows.values() for r in of_arm]
    hits, misses = sum(map(_hit, flat)), sum(map(_missed, flat))
    return Drawn(
        "time-to-target",
        "Time to target",
        figure if hits + misses else None,
        f"{count(hits, 'confirmation run')} that reached {target:g} % validation {accuracy} (filled) and {misses} that "
        "did not (crosses, at the end of the run: the true time is later, or never). An upright bar is the median with "
        "misses later than every hit; without a bar the median run missed. Left out: "
        f"{count(len(flat) - hits - misses)} without a measurement.",
        by_row(
            f"Epochs to {target:g} % at each seed; – is a run without a measurement.",
            "seed",
            tables.study.confirm.seeds,
            {
                name: {r["seed"]: r["epochs_to_target"] if _hit(r) else "missed" for r in mine if _hit(r) or _missed(r)}
                for name, mine in rows.items()
            },
        ),
    )


def _accuracies(tables: StudyTables, arm: str) -> dict[int, float]:
    """Test accuracy in percent by seed, of the runs that have one."""
    return {row["seed"]: 100 * value for row in confirm_rows(tables, arm) if (value := result(row)) is not None}


def _hit(row: Row) -> bool:
    return row["epochs_to_target"] is not None


def _missed(row: Row) -> bool:
    return not _hit(row) and bool(row["epochs_run"])


def _clock(row: Row, column: str, less: str | None) -> float:
    return float(row[column]) - (float(row[less]) if less else 0.0)


def _of_many(n_seeds: int) -> str:
    return "" if n_seeds <= MANY else f" for {MANY} of {n_seeds} seeds"
