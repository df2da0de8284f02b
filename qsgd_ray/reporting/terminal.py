"""A study's verdict on a terminal: its tables in, rich's tables out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.claims import Claim, Finding
from qsgd_ray.analysis.effect_map import EffectMap
from qsgd_ray.analysis.ladder import WORDS, Ladder
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.analysis.verdict import Verdict
from qsgd_ray.reporting.formatting import (
    SIGNS,
    digits,
    factor,
    gib,
    improvement,
    interquartile_mean,
    median_time,
    misses,
    points,
    share,
    span,
)

NONE = "–"
FINDING_STYLES = {
    Finding.SUPPORTED: "bold green",
    Finding.CONTRADICTED: "bold red",
    Finding.INCONCLUSIVE: "bold yellow",
    Finding.NOT_MEASURED: "dim",
}
# What a number of each unit is multiplied with, how many digits it keeps, and what follows it.
UNITS = {"points": (100.0, 2, ""), "share": (100.0, 1, " %"), "nats": (1.0, 4, "")}


def claims_table(claims: Sequence[Claim]) -> RenderableType:
    """What the paper says, what came out, and a reason for each."""
    table = Table(title="The paper's claims", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("claim", "by arm", "claimed", "measured", "95 % interval", "finding"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        table.add_row(
            Text(claim.id),
            Text(claim.arm),
            told(claim.claimed, claim.unit),
            told(claim.measured, claim.unit),
            interval_told(claim),
            Text(claim.finding, style=FINDING_STYLES[claim.finding]),
        )
    reasons = [Text.assemble((f"{c.id}: ", "bold"), f"{c.text[0].upper()}{c.text[1:]}. {c.why}") for c in claims]
    return Group(table, *reasons)


def told(value: float | None, unit: str) -> str:
    """A number of a claim with its sign: points of accuracy, percent of change, nats."""
    if value is None:
        return NONE
    factor, decimals, suffix = UNITS[unit]
    return f"{factor * value:+.{decimals}f}{suffix}".replace("-", "−")


def interval_told(claim: Claim) -> str:
    return NONE if claim.interval is None else " to ".join(told(edge, claim.unit) for edge in claim.interval)


# What a template shows of a claim.
FILTERS = {
    "claimed": lambda claim: told(claim.claimed, claim.unit),
    "measured": lambda claim: told(claim.measured, claim.unit),
    "interval_told": interval_told,
}


def ladders_told(ladders: Sequence[Ladder]) -> RenderableType:
    """One line an arm."""
    lines = [Text(f"{ladder.told}{_missing(ladder)}") for ladder in ladders]
    return Group(Text("The ladder of controls", style="bold"), *lines)


def _missing(ladder: Ladder) -> str:
    if not ladder.missing:
        return ""
    return f" Not in the study: {', '.join(WORDS[name] for name in ladder.missing)}."


def map_told(found: EffectMap) -> RenderableType:
    """How many settings of the map show what."""
    counts: dict[str, int] = {}
    for cell in found.cells:
        counts[cell.effect.verdict] = counts.get(cell.effect.verdict, 0) + 1
    words = ", ".join(f"{count} {word}" for word, count in counts.items())
    axes = " and ".join(path.rpartition(".")[2].rstrip("_") for path in found.axes)
    return Text.assemble(
        ("The map\n", "bold"),
        f"{found.arm} at {len(found.cells)} settings of {axes} against {found.baseline}: {words}.",
    )


VERDICT_STYLES = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.EQUIVALENT: "bold blue",
    Verdict.INCONCLUSIVE: "bold yellow",
}


def verdict_table(analysis: StudyAnalysis) -> RenderableType:
    """The verdicts for a terminal: word, difference in percentage points, chance to win, and a reason for each."""
    study, verdicts = analysis.study, analysis.verdicts
    rule = study.decision
    table = Table(title=Text(study.question, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in (
        "arm",
        "verdict",
        f"difference\nto {study.baseline}",
        f"{100 * (1 - rule.alpha):g} % interval",
        "P(improvement)",
    ):
        table.add_column(column, overflow="fold")
    for v in verdicts:
        word = Text(f"{SIGNS[v.verdict]} {v.verdict}", style=VERDICT_STYLES[v.verdict], no_wrap=True)
        difference = (points(v.difference), span(v.interval, sign=True))
        table.add_row(Text(v.arm), word, *difference, improvement(v.improvement))
    reasons = [Text.assemble((f"{v.arm}: ", "bold"), v.reason) for v in verdicts]
    accuracy = study.workload.accuracy_name
    scale = f"Differences in points of test {accuracy}; margin {points(rule.margin, sign=False)}, alpha {rule.alpha:g}."
    return Group(table, *reasons, Text(scale, style="dim"))


def summary_table(analysis: StudyAnalysis) -> Table:
    """What the confirmation shows of every arm, for a terminal; times are medians, misses later than every hit."""
    target = f"{100 * analysis.study.workload.target_accuracy:g} %"
    table = Table(title="Confirmation", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold")
    accuracy = analysis.study.workload.accuracy_name.replace(" of ", "\nof ")
    table.add_column(f"test {accuracy} %", justify="right", no_wrap=True)
    for column in (
        f"missed\n{target}",
        f"epochs\nto {target}",
        f"seconds\nto {target}",
        "|λQ| /\n|Adam|",
        "over-\nhead",
    ):
        table.add_column(column, justify="right")
    for s in analysis.summaries:
        table.add_row(
            Text(s.arm),
            interquartile_mean(s).replace(" (", "\n("),
            misses(s.epochs_to_target).replace(" of ", "/"),
            median_time(s.epochs_to_target),
            median_time(s.seconds_to_target),
            digits(s.step_ratio),
            factor(s.overhead),
        )
    return table


def throughput_table(analysis: StudyAnalysis) -> Table:
    """How the confirmation's runs went through their data, for a terminal; medians over the runs."""
    table = Table(title="Throughput", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
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
