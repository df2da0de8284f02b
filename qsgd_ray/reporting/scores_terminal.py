"""A verdict on scores on a terminal: a `ScoreAnalysis` in, rich's tables out."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.scores import ScoreAnalysis
from qsgd_ray.reporting._formatting import VERDICT_SIGNS, VERDICT_STYLES, improvement
from qsgd_ray.reporting.scores_document import scores_document


def scores_report(analysis: ScoreAnalysis) -> list[RenderableType]:
    """Return everything that a terminal shows of a verdict on scores, in reading order."""
    rule, tree = analysis.rule, scores_document(analysis)
    numbers = rule.numbers
    unit = f" ({numbers.unit_of_values})" if numbers.unit_of_values else ""
    arms = _table(f"{rule.score}{unit} of {analysis.scores.source}")
    for column in ("arm", "runs", "without\na result", "interquartile\nmean", "95 % interval"):
        arms.add_column(column, overflow="fold", justify="left" if column == "arm" else "right")
    for entry in tree["arms"]:
        cells = (numbers.value(entry["iqm"]), numbers.interval(entry["iqm_interval"], sign=False))
        arms.add_row(Text(entry["arm"]), str(entry["n_runs"]), str(entry["n_null"]), *cells)
    verdicts = _table(analysis.headline)
    level = f"{100 * (1 - rule.decision.alpha):g} % interval"
    for column in ("arm", "verdict", "difference", level, "P(improvement)"):
        verdicts.add_column(column, overflow="fold")
    for v, entry in zip(analysis.verdicts, tree["verdicts"], strict=True):
        word = Text(f"{VERDICT_SIGNS[v.verdict]} {v.verdict}", style=VERDICT_STYLES[v.verdict], no_wrap=True)
        cells = (numbers.difference(v.difference), numbers.interval(entry["interval"]))
        verdicts.add_row(Text(v.arm), word, *cells, improvement(v.improvement))
    better = "higher" if rule.direction == "max" else "lower"
    differences = f" in {numbers.unit_of_differences}" if numbers.unit_of_differences else ""
    scale = f"Differences to {rule.baseline}{differences}; {better} is better; margin {numbers.size(rule.margin)}"
    return [
        arms,
        verdicts,
        *(Text.assemble((f"{v.arm}: ", "bold"), v.reason) for v in analysis.verdicts),
        Text(f"{scale}, alpha {rule.decision.alpha:g}.", style="dim"),
        *(Text(note, style="yellow") for note in analysis.scores.notes),
    ]


def _table(title: str) -> Table:
    return Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
