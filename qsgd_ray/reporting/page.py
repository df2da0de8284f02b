"""The report of a study as a page: its analysis in, one self-contained HTML text out.

The page loads nothing from a network: plotly.js is in the file and a content policy forbids the rest. A study that is
half finished is reported as far as it went. `_SECTIONS` lists what a reader meets, in order: a file each in
templates/sections, which finds its values in `_template_values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qsgd_ray.analysis.ladder import RUNG_DESCRIPTIONS
from qsgd_ray.analysis.metric import unit_of
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting._formatting import FILTERS, VERDICT_SIGNS
from qsgd_ray.reporting.html import figure_values, leaves_as_text, render

_MOST_ERRORS = 20


@dataclass(frozen=True)
class _Section:
    """A part of the page: the name of its template, the id of its heading, and its title among the links."""

    name: str
    id: str
    title: str


# `_sections_of` leaves those out for which a study has nothing to show.
_SECTIONS = (
    _Section("verdict", "verdicts", "Verdict"),
    _Section("ladder", "ladder", "Ladder"),
    _Section("claims", "claims", "Claims"),
    _Section("arms", "arms", "Arms"),
    _Section("figures", "figures", "Curves"),
    _Section("map", "map", "Map"),
    _Section("importance", "importance", "Settings"),
    _Section("scaling", "scaling", "Scaling"),
    _Section("costs", "costs", "Cost"),
    _Section("trials", "trials", "Trials"),
    _Section("provenance", "provenance", "Provenance"),
)


def render_page(analysis: StudyAnalysis, scaling: dict[str, Any] | None = None) -> str:
    """Return the whole page as HTML.

    Args:
        analysis: the study's analysis.
        scaling: a study of limits, as the page's section on scaling shows it; default: no such section.
    """
    values = _template_values(analysis) | {"scaling": scaling}
    return render("report.html.j2", values | {"sections": _sections_of(values)}, FILTERS)


def _sections_of(values: Mapping[str, Any]) -> list[_Section]:
    optional = {
        "ladder": values["ladders"],
        "claims": values["claims"],
        "map": values["map_figure"],
        "scaling": values["scaling"],
    }
    return [section for section in _SECTIONS if optional.get(section.name, True)]


def _template_values(analysis: StudyAnalysis) -> dict[str, Any]:
    """Return the values that the sections show, by the names that the templates use."""
    # plotly takes half a second to load, and a study is also reported by its tables alone.
    from qsgd_ray.reporting._all_figures import captioned_figures

    study = analysis.study
    figures = {name: figure_values(captioned) for name, captioned in captioned_figures(analysis).items()}
    in_sections = {name: figures.pop(name, None) for name in ("search", "effect-map", "costs-by-arm")}
    return {
        "study": study,
        "metric": analysis.metric,
        "label": analysis.metric_label,
        "column": analysis.metric.name.replace("_", " "),
        "difference_unit": unit_of(analysis.metric),
        "headline": analysis.headline,
        "notes": analysis.notes,
        "missing": analysis.missing,
        "changed": analysis.is_changed,
        "ladders": analysis.ladders,
        "rung_descriptions": RUNG_DESCRIPTIONS,
        "claims": analysis.claims,
        "map_figure": in_sections["effect-map"],
        "verdicts": analysis.verdicts,
        "signs": VERDICT_SIGNS,
        "summaries": analysis.summaries,
        "improvements": {v.arm: v.improvement for v in analysis.verdicts},
        "figures": list(figures.values()),
        "search_figure": in_sections["search"],
        "searched": list(dict.fromkeys(path for arm in study.arms for path in arm.spaces())),
        "importances": analysis.importances,
        "budgets": analysis.budgets,
        "budget_sentence": analysis.budget_sentence,
        "ledger": analysis.ledger,
        "spent": analysis.spent,
        "cost_figure": in_sections["costs-by-arm"],
        "endings": [*Ending],
        "ending_counts": analysis.endings,
        "errors": analysis.errors,
        "most_errors": _MOST_ERRORS,
        "provenance": list(leaves_as_text(analysis.provenance)),
    }
