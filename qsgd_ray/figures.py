"""The figures of a report: result tables in, one `Drawn` (title, plotly figure, caption) a question out.

Captions say which rows are drawn and how many are left out for want of a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from qsgd_ray.analysis.profile import performance_profile
from qsgd_ray.analysis.summary import ArmSummary, Row, confirm_rows, result, step_ratio
from qsgd_ray.analysis.verdict import ArmVerdict
from qsgd_ray.drawing import (
    FAINT,
    GREY,
    SHADE,
    Drawn,
    Look,
    Points,
    band,
    count,
    dots,
    dress,
    lane_axis,
    lanes,
    looks,
    name_axes,
    powers,
    silent,
    steps,
    thin,
    trajectories,
    whisker,
)
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Tables

# From blue over green to amber: neither end vanishes in a white or a black page.
SCALE = ((0.0, "#3E5BA9"), (0.5, "#2A9D8F"), (1.0, "#E9A820"))


def draw(tables: Tables, verdicts: Sequence[ArmVerdict], summaries: Sequence[ArmSummary]) -> list[Drawn]:
    """Every figure of the report, in reading order."""
    return [
        paired_differences(tables, verdicts),
        final_accuracy(tables, summaries),
        performance_profiles(tables),
        learning_curves(tables),
        time_to_target(tables, summaries),
        step_ratios(tables),
        search_map(tables),
    ]


def paired_differences(tables: Tables, verdicts: Sequence[ArmVerdict]) -> Drawn:
    """Each seed's difference in test accuracy, the mean with its intervals, the margin of equivalence as a band."""
    study, look = tables.study, looks(tables.study)
    figure = lanes([v.arm for v in verdicts])
    figure.add_vrect(
        x0=-100 * study.decision.margin, x1=100 * study.decision.margin, fillcolor=SHADE, line_width=0, layer="below"
    )
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    baseline, drawn = _accuracies(tables, study.baseline), 0
    for i, v in enumerate(verdicts):
        points = {seed: x - baseline[seed] for seed, x in _accuracies(tables, v.arm).items() if seed in baseline}
        drawn += len(points)
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
    )


def final_accuracy(tables: Tables, summaries: Sequence[ArmSummary]) -> Drawn:
    """Test accuracy of every seed, seeds joined across arms, and the interquartile mean with its interval."""
    names, look = [s.arm for s in summaries], looks(tables.study)
    figure, values = lanes(names), {name: _accuracies(tables, name) for name in names}
    for seed in tables.study.confirm.seeds:
        path = [(values[name][seed], i - 0.16) for i, name in enumerate(names) if seed in values[name]]
        line = {"color": FAINT, "width": 1}
        figure.add_scatter(x=[x for x, _ in path], y=[y for _, y in path], mode="lines", line=line, **silent())
    for i, s in enumerate(summaries):
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
        "the same seed across arms. The larger marker is the interquartile mean with its 95 % bootstrap interval. Left "
        f"out: {count(sum(s.n_null for s in summaries))} without a test {accuracy}.",
    )


def performance_profiles(tables: Tables) -> Drawn:
    """The share of each arm's runs that reach an accuracy, over the accuracies, with a band at each."""
    scores = {
        arm.name: [result(row) for row in confirm_rows(tables, arm.name) if row["ending"] != Ending.LOST]
        for arm in tables.study.arms
    }
    rows = sum(len(confirm_rows(tables, name)) for name in scores)
    ended, results = sum(map(len, scores.values())), sorted({x for s in scores.values() for x in s if x is not None})
    figure = dress(go.Figure(), 400)
    pad = max(0.05 * (results[-1] - results[0]), 0.002) if results else 0.0
    thresholds = [results[0] - pad, *results, results[-1] + pad] if results else []
    for arm, look in looks(tables.study).items():
        profile = performance_profile(scores[arm], thresholds)
        if profile is not None and results:
            steps(figure, arm, look, profile, 100)
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
    )


def learning_curves(tables: Tables) -> Drawn:
    """Validation accuracy by epoch: interquartile mean and band over completed runs, thin lines for single runs."""
    figure, drawn, incomplete, empty = dress(go.Figure(), 440), 0, 0, 0
    target = 100 * tables.study.workload.target_accuracy
    figure.add_hline(y=target, line={"color": GREY, "dash": "dash", "width": 1.5})
    for arm, look in looks(tables.study).items():
        whole: list[Points] = []
        for row, points in trajectories(tables, arm, lambda m: m["validation_accuracy"]):
            completed = row["ending"] == Ending.COMPLETED
            empty += not points
            if points:
                drawn, incomplete = drawn + 1, incomplete + (not completed)
                thin(figure, arm, look, points, 100, whole=completed)
                whole += [points] if completed else []
        band(figure, arm, look, whole, 100)
    accuracy = tables.study.workload.accuracy_name
    name_axes(figure, "epoch", f"validation {accuracy} (%)")
    return Drawn(
        "learning-curves",
        "How training went",
        figure if drawn else None,
        f"Validation {accuracy} of {count(drawn, 'confirmation run')}, a thin line each; thick lines are interquartile "
        f"means of the completed runs with 95 % bootstrap bands, the dashed line is the target of {target:g} %. Not in "
        f"mean and band: {count(incomplete)} that did not complete (dotted); left out: {count(empty)} without a "
        "measurement. A click on a name hides its arm.",
    )


def time_to_target(tables: Tables, summaries: Sequence[ArmSummary]) -> Drawn:
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
    )


def step_ratios(tables: Tables) -> Drawn:
    """|lambda * Q| over |Adam step| by epoch, for every arm that is perturbed."""
    figure, drawn, left_out = dress(go.Figure(), 380), 0, 0
    perturbed = {arm.name for arm in tables.study.arms if arm.perturbation is not None}
    for arm, look in looks(tables.study).items():
        runs: list[Points] = []
        for row, points in trajectories(tables, arm, step_ratio) if arm in perturbed else ():
            positive = [(epoch, y) for epoch, y in points if y > 0]  # a logarithmic axis has no zero
            left_out += not positive
            if positive:
                thin(figure, arm, look, positive, whole=row["ending"] == Ending.COMPLETED)
                runs.append(positive)
        drawn += len(runs)
        band(figure, arm, look, runs)
    name_axes(figure, "epoch", "|λQ| / |Adam step|")
    figure.update_yaxes(powers())
    figure.update_layout(showlegend=True)
    return Drawn(
        "step-ratio",
        "How large the perturbation was",
        figure if drawn else None,
        f"Length of the perturbation over the length of Adam's own step in {count(drawn, 'confirmation run')} of the "
        "perturbed arms (thin), and their interquartile mean with 95 % bootstrap band (thick). At 10⁻³ the "
        f"perturbation moves a step by a thousandth. Left out: {count(left_out)} without a ratio above zero.",
    )


def search_map(tables: Tables) -> Drawn:
    """Learning rate, lambda and validation accuracy of every search trial; trials without lambda in a strip below."""
    rows = [r for r in tables.trials.to_pylist() if r["stage"] == "search"]
    plain = [a.name for a in tables.study.arms if any(r["arm"] == a.name and not r["lambda_"] for r in rows)]
    strip = 2 if any(r["lambda_"] for r in rows) else 1
    heights = [300, 40 + 30 * len(plain)][-strip:]
    figure = make_subplots(rows=strip, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    dress(figure, sum(heights) + 100)
    for name, look in looks(tables.study).items():
        mine = [r for r in rows if r["arm"] == name]
        if mine:
            marker = {"color": GREY, "symbol": look.marker, "size": 10}
            figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)
        for r in mine:
            figure.add_scatter(
                x=[r["learning_rate"]],
                y=[r["lambda_"] or plain.index(name)],
                mode="markers",
                marker=_search_marker(r, look),
                hovertemplate=f"{name} {r['number']}, {r['ending']} after {count(r['epochs_run'], 'epoch')}"
                "<br>learning rate %{x:.3~g}, accuracy %{marker.color:.4~g}<extra></extra>",
                row=1 if r["lambda_"] else strip,
                col=1,
                **silent(),
            )
    if strip == 2:
        figure.update_yaxes(powers() | {"title": {"text": "λ"}}, row=1, col=1)
    if plain:
        lane_axis(figure, plain, row=strip, col=1)
        figure.update_yaxes(title={"text": "no λ"}, row=strip, col=1)
    figure.update_xaxes(powers())
    figure.update_xaxes(title={"text": "learning rate"}, row=strip, col=1)
    bar = {"title": {"text": "val. %", "font": {"size": 13}}, "thickness": 12, "outlinewidth": 0}
    coloured = [100 * r["validation_accuracy"] for r in rows if _coloured(r)]
    scale = {"colorscale": SCALE, "cmin": min(coloured, default=0), "cmax": max(coloured, default=1), "colorbar": bar}
    figure.update_layout(coloraxis=scale, showlegend=True)
    return Drawn(
        "search",
        "Where the search looked",
        figure if rows else None,
        f"{count(len(rows), 'search trial')}: colour is the final validation {tables.study.workload.accuracy_name}, "
        "shape the arm; filled ran to "
        f"the end, hollow were stopped early. Without a colour: {count(len(rows) - len(coloured), 'trial')} that "
        "diverged, failed, were lost or have no accuracy (grey crosses).",
    )


def _accuracies(tables: Tables, arm: str) -> dict[int, float]:
    """Test accuracy in percent by seed, of the runs that have one."""
    return {row["seed"]: 100 * value for row in confirm_rows(tables, arm) if (value := result(row)) is not None}


def _hit(row: Row) -> bool:
    return row["epochs_to_target"] is not None


def _missed(row: Row) -> bool:
    return not _hit(row) and bool(row["epochs_run"])


def _clock(row: Row, column: str, less: str | None) -> float:
    return float(row[column]) - (float(row[less]) if less else 0.0)


def _coloured(row: Row) -> bool:
    value = row["validation_accuracy"]
    return row["ending"] in (Ending.COMPLETED, Ending.STOPPED_EARLY) and value is not None and bool(np.isfinite(value))


def _search_marker(row: Row, look: Look) -> dict[str, Any]:
    if not _coloured(row):
        return {"color": GREY, "symbol": "x-thin-open", "size": 9, "line": {"width": 2}}
    colour = {"color": [100 * row["validation_accuracy"]], "coloraxis": "coloraxis"}
    if row["ending"] == Ending.STOPPED_EARLY:
        return {**colour, "symbol": f"{look.marker}-open", "size": 10, "line": {"width": 2}}
    return {**colour, "symbol": look.marker, "size": 11, "line": {"color": GREY, "width": 0.8}}
