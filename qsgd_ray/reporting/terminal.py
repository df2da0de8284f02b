"""A study's verdict on a terminal: its analysis in, rich's tables out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.budget import BudgetStatus
from qsgd_ray.analysis.claim import CheckedClaim, Finding
from qsgd_ray.analysis.comparison import Comparison
from qsgd_ray.analysis.effect_map import EffectMap
from qsgd_ray.analysis.ladder import RUNG_DESCRIPTIONS, Ladder
from qsgd_ray.analysis.metric import unit_of
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.config import ACCURACY, Metric
from qsgd_ray.reporting._formatting import (
    MISSING,
    VERDICT_SIGNS,
    VERDICT_STYLES,
    axis_name,
    claim_arm,
    claim_interval,
    claim_sources,
    claim_text,
    claim_value,
    difference,
    digits,
    gib,
    improvement,
    interquartile_mean,
    median_time,
    misses,
    overhead,
    share,
    span,
    target_text,
)
from qsgd_ray.reporting._metric_words import better_side, in_unit, of_unit

# A list of seeds would push the rest of a table off the screen.
_LONGEST = 40
# The names of most arms stand on one line on a terminal of 80 columns.
_ARM_WIDTH = 12
# An interval of scores in percent, in brackets, is as wide.
_SCORE_WIDTH = 16
_FINDING_STYLES = {
    Finding.SUPPORTED: "bold green",
    Finding.CONTRADICTED: "bold red",
    Finding.INCONCLUSIVE: "bold yellow",
    Finding.NOT_MEASURED: "dim",
}


def study_report(analysis: StudyAnalysis) -> list[RenderableType]:
    """Return everything that a terminal shows of a study, in reading order: what `qsgd-ray report` prints."""
    parts: list[RenderableType] = [Text(sentence, style="bold red") for sentence in analysis.missing]
    parts.append(_summary_table(analysis))
    if analysis.study.workload.is_language_model:
        parts.append(_throughput_table(analysis))
    parts.append(_verdict_table(analysis))
    if analysis.ladders:
        parts += [_ladder_summary(analysis.ladders, with_rungs=analysis.study.ladder is not None), ""]
    if analysis.claims:
        parts.append(_claims_table(analysis.claims))
    if analysis.effect_map is not None:
        parts.append(_map_summary(analysis.effect_map))
    if analysis.spent is not None and analysis.study.budget is not None:
        parts.append(_budget_line(analysis.spent))
    return parts


def _budget_line(spent: BudgetStatus) -> Text:
    """Return one line on hours and money: spent, and expected to the end while trials are missing."""
    if spent.ended == spent.planned:
        return Text(f"Budget: {spent.amounts}.")
    if spent.is_spent:
        return Text(f"{spent.end_sentence.capitalize()}.", style="yellow")
    return Text(f"Budget: {spent.amounts}; {spent.expected}.")


def _verdict_table(analysis: StudyAnalysis) -> RenderableType:
    """Return the verdicts: word, difference, chance to win, and a reason for each."""
    study, verdicts, metric = analysis.study, analysis.verdicts, analysis.metric
    rule = study.decision
    table = _table(Text(study.question, style="bold"))
    for column in (
        "arm",
        "verdict",
        f"difference\nto {study.baseline}",
        f"{100 * (1 - rule.alpha):g} % interval",
        "P(improvement)",
    ):
        table.add_column(column, overflow="fold")
    for v in verdicts:
        word = Text(f"{VERDICT_SIGNS[v.verdict]} {v.verdict}", style=VERDICT_STYLES[v.verdict], no_wrap=True)
        shown = (difference(v.difference, metric), span(v.interval, sign=True, metric=metric))
        table.add_row(Text(v.arm), word, *shown, improvement(v.improvement))
    reasons = [Text.assemble((f"{v.arm}: ", "bold"), v.reason) for v in verdicts]
    scale = (
        f"Differences{of_unit(unit_of(metric))} of test {analysis.metric_label}; "
        f"margin {difference(rule.margin, metric, sign=False)}, alpha {rule.alpha:g}.{better_side(metric)}"
    )
    return Group(table, *reasons, Text(scale, style="dim"))


def _summary_table(analysis: StudyAnalysis) -> Table:
    """Return the confirmation of every arm in numbers; times are medians, misses later than every hit, if there is a
    target; the length of the perturbation is left out where no arm has one.
    """
    metric, has_target = analysis.metric, analysis.metric.target is not None
    is_perturbed = any(s.step_ratio is not None for s in analysis.summaries)
    target = target_text(metric)
    table = _table("Confirmation")
    table.padding = (0, 1, 0, 0)
    widest = max((len(s.arm) for s in analysis.summaries), default=0)
    table.add_column("arm", overflow="fold", min_width=min(widest, _ARM_WIDTH))
    unit = "%" if metric.kind == "share" else metric.unit
    label = f"test {analysis.metric_label} {unit}".rstrip()
    table.add_column("\n".join(textwrap.wrap(label, _SCORE_WIDTH)), justify="right", no_wrap=True)
    times = (f"missed\n{target}", f"epochs\nto {target}", f"seconds\nto {target}") if has_target else ()
    for column in times:
        table.add_column(column, justify="right")
    if is_perturbed:
        table.add_column("|λQ| /\n|Adam|", justify="right", no_wrap=True)
    table.add_column("over-\nhead", justify="right")
    for s in analysis.summaries:
        clocks = (
            misses(s.epochs_to_target).replace(" of ", "/"),
            median_time(s.epochs_to_target),
            median_time(s.seconds_to_target),
        )
        table.add_row(
            Text(s.arm),
            interquartile_mean(s, metric).replace(" (", "\n("),
            *(clocks if has_target else ()),
            *((digits(s.step_ratio),) if is_perturbed else ()),
            overhead(s).replace(" (", "\n("),
        )
    return table


def _throughput_table(analysis: StudyAnalysis) -> Table:
    """Return the throughput of the confirmation's runs, medians over the runs."""
    table = _table("Throughput")
    table.add_column("arm", overflow="fold")
    for column in ("tokens\nper s", "FLOP\nutilisation", "waiting\nfor circuits", "peak memory\nof a worker"):
        table.add_column(column, justify="right")
    for s in analysis.summaries:
        t = s.throughput
        table.add_row(
            Text(s.arm),
            digits(t.tokens_per_s),
            share(t.flop_utilisation),
            share(t.circuit_share),
            gib(t.peak_memory_bytes),
        )
    return table


def _claims_table(claims: Sequence[CheckedClaim]) -> RenderableType:
    """Return the study's claims: what is claimed, what was measured, and a reason for each finding."""
    sources = claim_sources(claims)
    table = _table(Text(f"Claims of {sources}" if sources else "Claims", style="bold"))
    for column in ("claim", "by arm", "claimed", "measured", "95 % interval", "finding"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        table.add_row(
            Text(claim.name),
            Text(claim_arm(claim)),
            Text(claim_value(claim.claimed, claim.unit)),
            Text(claim_value(claim.measured, claim.unit)),
            Text(claim_interval(claim)),
            Text(claim.finding, style=_FINDING_STYLES[claim.finding]),
        )
    reasons = [Text.assemble((f"{c.name}: ", "bold"), f"{claim_text(c, claims)} {c.why}") for c in claims]
    return Group(table, *reasons)


def _ladder_summary(ladders: Sequence[Ladder], *, with_rungs: bool = False) -> RenderableType:
    """Return one line an arm: the control that explains its gain, and the controls that the study lacks.

    With `with_rungs` a line for each control follows: what it would explain of a gain, and the verdict against it.
    """
    lines = []
    for ladder in ladders:
        lines.append(Text(f"{ladder.summary}{_missing_controls(ladder)}"))
        if with_rungs:
            lines += [
                Text(f"  against {rung.control} ({rung.explains}): {rung.against.verdict}") for rung in ladder.rungs
            ]
    return Group(Text("The ladder of controls", style="bold"), *lines)


def _missing_controls(ladder: Ladder) -> str:
    if not ladder.missing:
        return ""
    return f" Not in the study: {', '.join(RUNG_DESCRIPTIONS[name] for name in ladder.missing)}."


def _map_summary(effects: EffectMap) -> RenderableType:
    """Return one line on a map: how many of its settings have which verdict."""
    words = ", ".join(f"{count} {verdict}" for verdict, count in effects.verdict_counts.items())
    axes = " and ".join(map(axis_name, effects.axes))
    return Text.assemble(
        ("The map\n", "bold"),
        f"{effects.arm} at {len(effects.cells)} settings of {axes} against {effects.baseline}: {words}. ",
    )


def differences_table(comparison: Comparison, left: str, right: str) -> Table | Text:
    """Return the settings and the provenance that differ between two studies, a line a leaf.

    Args:
        comparison: of the two studies.
        left: the heading of the left study's values.
        right: the heading of the right study's values.
    """
    if not comparison.differences:
        return Text("Settings, versions and hardware are the same.", style="bold")
    table = _table("What differs")
    for column in ("", Text(left), Text(right)):
        table.add_column(column, overflow="fold")
    for leaf in comparison.differences:
        table.add_row(Text(leaf.path), _shortened(leaf.left), _shortened(leaf.right))
    return table


def arms_table(comparison: Comparison) -> Table:
    """Return the arms that two studies share; differences are DIR2 less DIR1, on the seeds that both have."""
    left, right = comparison.metrics
    table = _table(f"The same arms: test results {_results_of(left, right)}, DIR1 and DIR2")
    table.add_column("arm", overflow="fold")
    for column in ("DIR1", "DIR2", "difference\nat same seeds", "same\nbits", "time a step\nDIR2 / DIR1"):
        table.add_column(column, justify="right", no_wrap=True)
    for arm in comparison.arms:
        interval = f"\n({span(arm.interval, sign=True, metric=left)})" if arm.interval else ""
        times = f"\n({' to '.join(map(digits, arm.step_time_interval))})" if arm.step_time_interval else ""
        bits = f"{arm.n_same_bits} of {arm.n_hashed}" if arm.n_hashed else MISSING
        table.add_row(
            Text(arm.arm),
            interquartile_mean(arm.left, left).replace(" (", "\n("),
            interquartile_mean(arm.right, right).replace(" (", "\n("),
            f"{difference(arm.difference, left)}{interval}",
            bits,
            digits(arm.step_time_ratio) + times,
        )
    return table


def _results_of(left: Metric, right: Metric) -> str:
    """Return what the results of two studies are: percent of accuracy, or the metrics by their names."""
    if left.name == right.name == ACCURACY.name:
        return "in percent"
    names = [in_unit(metric.name.replace("_", " "), metric) for metric in (left, right)]
    return f"by {names[0]}" if names[0] == names[1] else f"by {names[0]} and {names[1]}"


def _shortened(text: str | None) -> Text:
    if text is None:
        return Text(MISSING)
    return Text(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ...")


def _table(title: str | Text) -> Table:
    return Table(title=title, title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
