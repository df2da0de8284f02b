"""The figures of a report by name: a `StudyAnalysis` in, plotly figures out."""

from __future__ import annotations

import plotly.graph_objects as go

from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.reporting._figures_confirmation import draw
from qsgd_ray.reporting._figures_costs import cost_figure
from qsgd_ray.reporting._figures_map import drawn_map
from qsgd_ray.reporting._figures_search import search_map
from qsgd_ray.reporting.plot_style import Drawn


def captioned_figures(analysis: StudyAnalysis) -> dict[str, Drawn]:
    """Return every figure of a study's report with its caption and its numbers, by name, in reading order."""
    drawn = [
        *draw(analysis.tables, analysis.verdicts, analysis.summaries),
        search_map(analysis.tables),
        *([] if analysis.effect_map is None else [drawn_map(analysis.effect_map)]),
        cost_figure(analysis.ledger),
    ]
    return {one.name: one for one in drawn}


def figures(analysis: StudyAnalysis) -> dict[str, go.Figure]:
    """Return the plotly figures of a study's report by name, in reading order; those without rows are left out."""
    return {name: drawn.figure for name, drawn in captioned_figures(analysis).items() if drawn.figure is not None}
