"""The report of a study: its folder in, one self-contained `report.html` out.

The page asks nothing of a network: plotly.js is in the file and a content policy forbids the rest. A study that is half
finished is reported as far as it went. `SECTIONS` is what a reader meets, in order: a file each in templates/sections,
which finds in `context` what it shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsgd_ray.analysis.costs import verdict_on_budgets
from qsgd_ray.analysis.ladder import WORDS
from qsgd_ray.analysis.study_analysis import StudyAnalysis, analyse
from qsgd_ray.analysis.verdict import ArmVerdict, Verdict
from qsgd_ray.config import STAGES
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting.formatting import FILTERS, SIGNS, flat
from qsgd_ray.reporting.html import rendered, shown
from qsgd_ray.reporting.terminal import FILTERS as CLAIMS_TOLD
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.storage import Storage

MOST_ERRORS = 20


@dataclass(frozen=True)
class Section:
    """`name`: of its template. `id`: of its heading, for links."""

    name: str
    id: str
    title: str


# Sections that a study has nothing for are left out by `sections_of`.
SECTIONS = (
    Section("verdict", "verdicts", "Verdict"),
    Section("ladder", "ladder", "Ladder"),
    Section("claims", "claims", "Claims"),
    Section("arms", "arms", "Arms"),
    Section("figures", "figures", "Curves"),
    Section("map", "map", "Map"),
    Section("importance", "importance", "Settings"),
    Section("scaling", "scaling", "Scaling"),
    Section("costs", "costs", "Cost"),
    Section("trials", "trials", "Trials"),
    Section("provenance", "provenance", "Provenance"),
)


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


def write_report(
    where: str | Path | Storage, analysis: StudyAnalysis | None = None, scaling: dict[str, Any] | None = None
) -> Path | str:
    """Write `report.html` into a study's folder, replaced whole, and return where it is.

    Args:
        where: the study's folder or URI.
        analysis: the study's analysis, where there is one already; default: that of the rows in the folder.
        scaling: a study of limits, as the page's section on scaling shows it.

    Raises:
        StudyError: the folder holds no study.
    """
    results = Results(where)
    return results.write_text("report.html", page(analysis or analyse(results.tables()), scaling))


def page(analysis: StudyAnalysis, scaling: dict[str, Any] | None = None) -> str:
    """Return the whole page as text.

    Args:
        analysis: the study's analysis.
        scaling: a study of limits, as the page's section on scaling shows it.
    """
    told = context(analysis) | {"scaling": scaling}
    return rendered("report.html.j2", told | {"sections": sections_of(told)}, FILTERS | CLAIMS_TOLD)


def sections_of(told: dict[str, Any]) -> list[Section]:
    """Those that have something to say."""
    optional = {
        "ladder": told["ladders"],
        "claims": told["claims"],
        "map": told["map_figure"],
        "scaling": told["scaling"],
    }
    return [section for section in SECTIONS if optional.get(section.name, True)]


def context(analysis: StudyAnalysis) -> dict[str, Any]:
    """Return the values that the sections show, by the names that the templates use."""
    from qsgd_ray.reporting.figures import captioned_figures

    tables, verdicts = analysis.tables, analysis.verdicts
    figures = {name: shown(drawn) for name, drawn in captioned_figures(analysis).items()}
    elsewhere = {name: figures.pop(name, None) for name in ("search", "effect-map", "costs-by-arm")}
    return {
        "study": tables.study,
        "headline": headline(verdicts),
        "notes": tables.notes,
        "changed": bool(tables.changes),
        "ladders": analysis.ladders,
        "rung_words": WORDS,
        "claims": analysis.claims,
        "map_figure": elsewhere["effect-map"],
        "verdicts": verdicts,
        "signs": SIGNS,
        "summaries": analysis.summaries,
        "improvements": {v.arm: v.improvement for v in verdicts},
        "figures": list(figures.values()),
        "search_figure": elsewhere["search"],
        "searched": list(dict.fromkeys(path for arm in tables.study.arms for path in arm.spaces())),
        "importances": analysis.importances,
        "budgets": analysis.budgets,
        "budget_told": verdict_on_budgets(analysis.budgets),
        "ledger": analysis.ledger,
        "cost_figure": elsewhere["costs-by-arm"],
        "endings": [*Ending],
        "endings_rows": endings_rows(tables),
        "errors": errors(tables),
        "most_errors": MOST_ERRORS,
        "provenance": list(flat(tables.provenance)),
    }


def headline(verdicts: Sequence[ArmVerdict]) -> str:
    """All verdicts in one sentence."""
    if not verdicts:
        return "The study has no arm beside its baseline, so there is nothing to compare."
    counts = Counter(v.verdict for v in verdicts)
    told = [f"{counts[word]} {word}" for word in Verdict if counts[word]]
    arms = "one arm" if len(verdicts) == 1 else f"{len(verdicts)} arms"
    return f"Of {arms} against {verdicts[0].baseline}: {', '.join(told)}."


def endings_rows(tables: StudyTables) -> list[EndingsRow]:
    """A row for every stage and arm, search first; only the confirmation is counted by test data."""
    study = tables.study
    rows = []
    for stage in STAGES:
        metric = "test_accuracy" if stage == "confirm" else "validation_accuracy"
        for arm in study.arms:
            mine = tables.rows(stage, arm.name)
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


def errors(tables: StudyTables) -> list[dict[str, Any]]:
    """The trials that say what went wrong, by stage and arm."""
    arms = [arm.name for arm in tables.study.arms]
    return [row for stage in STAGES for arm in arms for row in tables.rows(stage, arm) if row["error"]]
