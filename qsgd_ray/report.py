"""The report of a study: its folder in, one self-contained `report.html` out; and the same tables for a terminal.

The page asks nothing of a network: plotly.js is in the file and a content policy forbids the rest. A study
that is half finished is reported as far as it went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.improvement import Improvement
from qsgd_ray.analysis.statistics import Interval, proportion_interval
from qsgd_ray.analysis.summary import ArmSummary, arm_summaries
from qsgd_ray.analysis.time_to_target import Saved, TimeToTarget
from qsgd_ray.analysis.verdict import ArmVerdict, Verdict, judge
from qsgd_ray.config import STAGES
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results, Tables
from qsgd_ray.storage import Storage

NONE = "–"
SIGNS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.EQUIVALENT: "=", Verdict.INCONCLUSIVE: "?"}
STYLES = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.EQUIVALENT: "bold blue",
    Verdict.INCONCLUSIVE: "bold yellow",
}


@dataclass(frozen=True)
class EndingsRow:
    """How the trials of one stage and arm ended. `n_null`: without the accuracy that the stage is about."""

    stage: str
    arm: str
    endings: dict[str, int]
    n_trials: int
    n_null: int
    n_planned: int
    epochs: int


def write_report(where: str | Path | Storage) -> Path | str:
    """`report.html` in the study's folder, replaced whole; StudyError where the folder holds no study."""
    # plotly takes half a second to load, and the terminal's tables do without it.
    from plotly.offline import get_plotlyjs

    from qsgd_ray.figures import draw

    results = Results(where)
    tables = results.read()
    verdicts, summaries = judge(tables), arm_summaries(tables)
    page = _environment().get_template("report.html.j2")
    figures = [
        {
            "name": drawn.name,
            "title": drawn.title,
            "caption": drawn.caption,
            "html": drawn.figure and Markup(_fragment(drawn.figure, drawn.name)),
        }
        for drawn in draw(tables, verdicts, summaries)
    ]
    return results.write_text(
        "report.html",
        page.render(
            study=tables.study,
            headline=headline(verdicts),
            verdicts=verdicts,
            signs=SIGNS,
            summaries=summaries,
            improvements={v.arm: v.improvement for v in verdicts},
            figures=figures,
            endings=[*Ending],
            endings_rows=endings_rows(tables),
            errors=[row for row in tables.trials.to_pylist() if row["error"]],
            provenance=list(flat(tables.provenance)),
            plotlyjs=Markup(get_plotlyjs()),
        ),
    )


def _fragment(figure: Any, name: str) -> str:
    config = {"responsive": True, "displayModeBar": False, "scrollZoom": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=f"plot-{name}"))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        points=points,
        span=span,
        digits=digits,
        iqm=interquartile_mean,
        improvement=improvement,
        median=median_time,
        median_interval=median_interval,
        misses=misses,
        saved=epochs_saved,
        factor=factor,
        p=p_value,
        loss=loss,
        whole=whole,
        share=share,
        gib=gib,
        right=right_answers,
    )
    return environment


def headline(verdicts: Sequence[ArmVerdict]) -> str:
    """All verdicts in one sentence."""
    if not verdicts:
        return "The study has no arm beside its baseline, so there is nothing to compare."
    counts = Counter(v.verdict for v in verdicts)
    told = [f"{counts[word]} {word}" for word in Verdict if counts[word]]
    arms = "one arm" if len(verdicts) == 1 else f"{len(verdicts)} arms"
    return f"Of {arms} against {verdicts[0].baseline}: {', '.join(told)}."


def endings_rows(tables: Tables) -> list[EndingsRow]:
    """A row for every stage and arm, search first; only the confirmation is counted by test data."""
    study, trials = tables.study, tables.trials.to_pylist()
    rows = []
    for stage in STAGES:
        metric = "test_accuracy" if stage == "confirm" else "validation_accuracy"
        for arm in study.arms:
            mine = [t for t in trials if t["stage"] == stage and t["arm"] == arm.name]
            rows.append(
                EndingsRow(
                    stage=stage,
                    arm=arm.name,
                    endings=dict(Counter(t["ending"] for t in mine)),
                    n_trials=len(mine),
                    n_null=sum(t[metric] is None for t in mine),
                    n_planned=study.planned(stage, arm),
                    epochs=sum(t["epochs_run"] or 0 for t in mine),
                )
            )
    return rows


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a JSON tree by dotted path, as text."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flat(value, f"{prefix}.{key}".lstrip("."))
    elif isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        for index, value in enumerate(tree):
            yield from flat(value, f"{prefix}.{index}".lstrip("."))
    elif isinstance(tree, list):
        yield prefix, ", ".join(map(str, tree)) or "none"
    else:
        yield prefix, NONE if tree is None else "none" if tree == {} else str(tree)


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


def share(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.3g} %"


def gib(n_bytes: float | None) -> str:
    return NONE if n_bytes is None else f"{n_bytes / 2**30:.3g} GiB"


def right_answers(s: ArmSummary) -> str:
    """With their share and its 95 % interval (Wilson)."""
    if not s.answers:
        return NONE
    low, high = proportion_interval(s.answers_right or 0, s.answers)
    return f"{s.answers_right} ({100 * low:.0f} to {100 * high:.0f} %)"


def percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def points(fraction: float | None, *, sign: bool = True) -> str:
    """Percentage points."""
    if fraction is None:
        return NONE
    return _signed(100 * fraction) if sign else _signed(100 * fraction).lstrip("+")


def _signed(value: float) -> str:
    told = f"{value:+.2f}".replace("-", "−")
    return "0.00" if told.lstrip("+−") == "0.00" else told


def span(interval: Interval | None, *, sign: bool = False) -> str:
    return NONE if interval is None else " to ".join(points(edge, sign=sign) for edge in interval)


def digits(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"


def loss(nats: float | None) -> str:
    return NONE if nats is None else f"{nats:.4f}"


def whole(count: int | None) -> str:
    return NONE if count is None else f"{count:,}"


def factor(overhead: float | None) -> str:
    return NONE if overhead is None else f"{100 * overhead:+.0f} %".replace("-", "−")


def p_value(value: float | None) -> str:
    return NONE if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interquartile_mean(s: ArmSummary) -> str:
    """With its interval, and how many of the runs have no result."""
    nulls = f", {s.n_null} null" if s.n_null else ""
    return f"{percent(s.iqm)}{nulls}{f' ({span(s.iqm_interval)})' if s.iqm_interval else ''}"


def improvement(found: Improvement | None) -> str:
    """The probability with its interval, as fractions of one."""
    if found is None:
        return NONE
    told = f"{found.probability:.2f} ({found.interval.low:.2f} to {found.interval.high:.2f})"
    return told if found.paired else f"{told}, not paired"


def misses(time: TimeToTarget) -> str:
    return f"{time.misses} of {time.n}" if time.n else NONE


def median_time(time: TimeToTarget) -> str:
    """A median that is a miss is said in words."""
    return NONE if not time.n else "missed" if time.median is None else digits(time.median)


def median_interval(time: TimeToTarget) -> str:
    """The median with its interval."""
    if time.interval is None or np.isinf(time.interval.low):
        return median_time(time)
    edges = ("missed" if np.isinf(edge) else digits(edge) for edge in time.interval)
    return f"{median_time(time)} ({' to '.join(edges)})"


def epochs_saved(found: Saved | None) -> str:
    if found is None:
        return NONE
    edges = f" ({' to '.join(map(_signed, found.interval))})" if found.interval else ""
    return f"{_signed(found.mean)}{edges}"
