"""A verdict as text for other programs and papers: its JSON tree in; JSON, CSV, Markdown or LaTeX out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from qsgd_ray.analysis.metric_numbers import MetricNumbers
from qsgd_ray.config import StudyError
from qsgd_ray.reporting._formatting import MISSING, p_value
from qsgd_ray.reporting.verdict_document import as_json

Tree = Mapping[str, Any]

_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "λ": r"$\lambda$",
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$])")


def formatted_verdict(tree: Tree, text_format: str) -> str:
    """Return a verdict in one of `FORMATS`; it ends with the end of a line.

    Args:
        tree: the document of a verdict (`verdict_document`).
        text_format: `json` is the tree itself; `csv` has a line a verdict with all digits; `markdown` and `latex`
            (which wants the package booktabs) are a table for people with a line an arm.

    Raises:
        StudyError: there is no such format; one line.
    """
    if text_format not in FORMATS:
        raise StudyError(f"format: got {text_format!r}; allowed: {', '.join(FORMATS)}")
    return FORMATS[text_format](tree)


def _csv(tree: Tree) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for index, line in enumerate(_lines(tree)):
        if not index:
            writer.writerow(line)
        writer.writerow("" if value is None else value for value in line.values())
    return text.getvalue()


def _lines(tree: Tree) -> Iterator[dict[str, Any]]:
    """Yield the columns of every verdict; of several workloads first the joint ones, whose workload is empty."""
    if "workloads" not in tree:
        yield from (dict(_flat(tree, verdict)) for verdict in tree["verdicts"])
        return
    yield from ({"workload": None} | dict(_flat(tree, verdict)) for verdict in tree["verdicts"])
    for workload in tree["workloads"]:
        part = _part(tree, workload)
        yield from ({"workload": workload["workload"]} | dict(_flat(part, v)) for v in workload["verdicts"])


def _part(tree: Tree, workload: Tree) -> Tree:
    """Return the tree of one workload of several: its metric and its margin with the rule of all."""
    return {**tree, "metric": workload["metric"], "rule": {**tree["rule"], "margin": workload["margin"]}}


def _flat(tree: Tree, verdict: Tree) -> Iterator[tuple[str, Any]]:
    """Yield the columns of a verdict's line: those of the document, an interval as two, and the rule behind them."""
    for name, value in verdict.items():
        if name == "improvement":
            value = value or {"probability": None, "interval": None, "paired": None}
            yield "improvement", value["probability"]
            yield from _edges("improvement", value["interval"])
            yield "improvement_paired", value["paired"]
        elif name.endswith("interval"):
            yield from _edges(name.removesuffix("interval").rstrip("_"), value)
        else:
            yield name, value
        if name == "arm":
            yield "baseline", tree["rule"]["baseline"]
            yield "metric", tree["metric"]["name"]
            yield "direction", tree["metric"]["direction"]
            yield "margin", tree["rule"]["margin"]


def _edges(name: str, interval: Mapping[str, float] | None) -> Iterator[tuple[str, float | None]]:
    for edge in ("low", "high"):
        yield f"{name}_{edge}".lstrip("_"), None if interval is None else interval[edge]


def _cells(tree: Tree) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the lines of a table for people, an arm each, the baseline with its own values alone."""
    if "workloads" in tree:
        return _joint_cells(tree)
    numbers, level = MetricNumbers.of(tree), 100 * (1 - tree["rule"]["alpha"])
    verdicts = {verdict["arm"]: verdict for verdict in tree["verdicts"]}
    unit, of_differences = numbers.unit_of_values, numbers.unit_of_differences
    headings = [
        "arm",
        f"{tree['metric']['name']}{f' ({unit})' if unit else ''}",
        "95 % interval",
        f"difference{f' ({of_differences})' if of_differences else ''}",
        f"{level:g} % interval",
        "p",
        "P(improvement)",
        "verdict",
    ]
    lines = []
    for arm in tree["arms"]:
        verdict = verdicts.get(arm["arm"])
        nulls = f", {arm['n_null']} null" if arm["n_null"] else ""
        line = [
            arm["arm"],
            numbers.value(arm["iqm"]) + nulls,
            numbers.interval(arm["iqm_interval"], sign=False),
        ]
        if verdict is None:
            line += [MISSING] * 4 + ["baseline"]
        else:
            improvement = verdict["improvement"]
            line += [
                numbers.difference(verdict["difference"]),
                numbers.interval(verdict["interval"]),
                p_value(verdict["p_difference"]),
                MISSING if improvement is None else f"{improvement['probability']:.2f}",
                verdict["verdict"],
            ]
        lines.append(line)
    return headings, lines


def _joint_cells(tree: Tree) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the lines of a table for people, an arm each: difference by workload, joint verdict."""
    numbers, level = MetricNumbers.of(tree), 100 * (1 - tree["rule"]["alpha"])
    headings = ["arm"]
    columns = []
    for workload in tree["workloads"]:
        of_workload = MetricNumbers.of(_part(tree, workload))
        unit = of_workload.unit_of_differences
        headings.append(f"{workload['workload']}{f' ({unit})' if unit else ''}")
        columns.append([f"{of_workload.difference(v['difference'])}, {v['verdict']}" for v in workload["verdicts"]])
    headings += ["joint score (margins)", f"{level:g} % interval", "p", "verdict"]
    lines = []
    for index, v in enumerate(tree["verdicts"]):
        joint = [numbers.difference(v["difference"]), numbers.interval(v["interval"]), p_value(v["p_difference"])]
        lines.append([v["arm"], *(column[index] for column in columns), *joint, v["verdict"]])
    return headings, lines


def _markdown(tree: Tree) -> str:
    headings, lines = _cells(tree)
    rows = [[_in_markdown(cell) for cell in line] for line in (headings, *lines)]
    rule = ["---", *["---:"] * (len(headings) - 2), "---"]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", _on_one_line(text))


def _latex(tree: Tree) -> str:
    headings, lines = _cells(tree)
    rows = [" & ".join(_in_latex(cell) for cell in line) + r" \\" for line in (headings, *lines)]
    means = tree.get("estimand", "Interquartile means;")
    parts = [
        f"% {_on_one_line(tree['headline'])} {means} Holm's correction of p. Needs booktabs.",
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 2)}l}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "".join(f"{part}\n" for part in parts)


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in _on_one_line(text))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


FORMATS: dict[str, Callable[[Tree], str]] = {"json": as_json, "csv": _csv, "markdown": _markdown, "latex": _latex}
