"""A study's verdict on a terminal: its tables in, rich's tables out."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.summary import arm_summaries
from qsgd_ray.analysis.verdict import Verdict, judge
from qsgd_ray.results import Tables
from qsgd_ray.words import (
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

STYLES = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.EQUIVALENT: "bold blue",
    Verdict.INCONCLUSIVE: "bold yellow",
}


def verdict_table(tables: Tables) -> RenderableType:
    """The verdicts for a terminal: word, difference in percentage points, chance to win, and a reason for each."""
    rule = tables.study.decision
    table = Table(
        title=Text(tables.study.question, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in (
        "arm",
        "verdict",
        f"difference\nto {tables.study.baseline}",
        f"{100 * (1 - rule.alpha):g} % interval",
        "P(improvement)",
    ):
        table.add_column(column, overflow="fold")
    verdicts = judge(tables)
    for v in verdicts:
        word = Text(f"{SIGNS[v.verdict]} {v.verdict}", style=STYLES[v.verdict], no_wrap=True)
        difference = (points(v.difference), span(v.interval, sign=True))
        table.add_row(Text(v.arm), word, *difference, improvement(v.improvement))
    reasons = [Text.assemble((f"{v.arm}: ", "bold"), v.reason) for v in verdicts]
    accuracy = tables.study.workload.accuracy_name
    scale = f"Differences in points of test {accuracy}; margin {points(rule.margin, sign=False)}, alpha {rule.alpha:g}."
    return Group(table, *reasons, Text(scale, style="dim"))


def summary_table(tables: Tables) -> Table:
    """What the confirmation shows of every arm, for a terminal; times are medians, misses later than every hit."""
    target = f"{100 * tables.study.workload.target_accuracy:g} %"
    table = Table(title="Confirmation", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold")
    accuracy = tables.study.workload.accuracy_name.replace(" of ", "\nof ")
    table.add_column(f"test {accuracy} %", justify="right", no_wrap=True)
    for column in (
        f"missed\n{target}",
        f"epochs\nto {target}",
        f"seconds\nto {target}",
        "|λQ| /\n|Adam|",
        "over-\nhead",
    ):
        table.add_column(column, justify="right")
    for s in arm_summaries(tables):
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


def throughput_table(tables: Tables) -> Table:
    """How the confirmation's runs went through their data, for a terminal; medians over the runs."""
    table = Table(title="Throughput", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold")
    for column in ("tokens\nper s", "FLOP\nutilisation", "waiting\nfor circuits", "peak memory\nof a worker"):
        table.add_column(column, justify="right")
    for s in arm_summaries(tables):
        t = s.throughput
        table.add_row(
            Text(s.arm),
            digits(t.tokens_per_s),
            share(t.flop_utilisation),
            share(t.circuit_share),
            gib(t.peak_memory_bytes),
        )
    return table
