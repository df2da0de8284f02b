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

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.statistics import Interval, TimeToTarget
from qsgd_ray.analysis.summary import arm_summaries
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
        time=time_to_target,
        factor=factor,
        p=p_value,
        loss=loss,
        whole=whole,
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
    """A row for every stage and arm, search first; a search never reads test data and is counted by validation."""
    study, trials = tables.study, tables.trials.to_pylist()
    rows = []
    for stage in STAGES:
        metric = "validation_accuracy" if stage == "search" else "test_accuracy"
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
    """The verdicts for a terminal: word, difference with interval in percentage points, and a reason for each."""
    rule = tables.study.decision
    table = Table(
        title=Text(tables.study.question, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in (
        "arm",
        "verdict",
        f"difference to {tables.study.baseline}",
        f"{100 * (1 - rule.alpha):g} % interval",
    ):
        table.add_column(column, overflow="fold")
    verdicts = judge(tables)
    for v in verdicts:
        word = Text(f"{SIGNS[v.verdict]} {v.verdict}", style=STYLES[v.verdict], no_wrap=True)
        table.add_row(Text(v.arm), word, points(v.difference), span(v.interval, sign=True))
    reasons = [Text.assemble((f"{v.arm}: ", "bold"), v.reason) for v in verdicts]
    accuracy = tables.study.workload.accuracy_name
    scale = f"Differences in points of test {accuracy}; margin {points(rule.margin, sign=False)}, alpha {rule.alpha:g}."
    return Group(table, *reasons, Text(scale, style="dim"))


def summary_table(tables: Tables) -> Table:
    """What the confirmation shows of every arm, for a terminal: medians, and hits of runs in brackets."""
    target = f"{100 * tables.study.workload.target_accuracy:g} %"
    table = Table(title="Confirmation", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold")
    accuracy = tables.study.workload.accuracy_name.replace(" of ", "\nof ")
    table.add_column(f"test {accuracy} %", justify="right", no_wrap=True)
    for column in (f"epochs\nto {target}", f"seconds\nto {target}", "|λQ| /\n|Adam|", "overhead"):
        table.add_column(column, justify="right")
    for s in arm_summaries(tables):
        interval = f" ({span(s.iqm_interval)})" if s.iqm_interval else ""
        table.add_row(
            Text(s.arm),
            f"{percent(s.iqm)}{interval}",
            time_to_target(s.epochs_to_target),
            time_to_target(s.seconds_to_target),
            digits(s.step_ratio),
            factor(s.overhead),
        )
    return table


def percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.2f}"


def points(fraction: float | None, *, sign: bool = True) -> str:
    """Percentage points."""
    if fraction is None:
        return NONE
    told = f"{100 * fraction:{'+' if sign else ''}.2f}".replace("-", "−")
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


def time_to_target(time: TimeToTarget) -> str:
    """The median and the hits; a median that is a miss is said in words."""
    if not time.n:
        return NONE
    return f"{'missed' if time.median is None else digits(time.median)} ({time.hits}/{time.n})"
