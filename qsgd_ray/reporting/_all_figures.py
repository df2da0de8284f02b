"""The figures of a report with captions and numbers, by name: a `StudyAnalysis` in, a `CaptionedFigure` each out."""

from __future__ import annotations

from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.reporting._figures_confirmation import (
    final_accuracy_figure,
    paired_differences_figure,
    profiles_figure,
    time_to_target_figure,
)
from qsgd_ray.reporting._figures_costs import cost_figure
from qsgd_ray.reporting._figures_curves import learning_curves_figure, step_ratio_figure
from qsgd_ray.reporting._figures_map import effect_map_figure
from qsgd_ray.reporting._figures_search import search_figure
from qsgd_ray.reporting.plot_style import CaptionedFigure


def captioned_figures(analysis: StudyAnalysis) -> dict[str, CaptionedFigure]:
    """Return every figure of a study's report with its caption and its numbers, by name, in reading order.

    The names: paired-differences, final-accuracy, performance-profiles, learning-curves, time-to-target, step-ratio,
    search, effect-map (where the study has a map) and costs-by-arm; no time-to-target for a metric without a target.
    """
    drawn = [
        paired_differences_figure(analysis),
        final_accuracy_figure(analysis),
        profiles_figure(analysis),
        learning_curves_figure(analysis),
        *([] if analysis.metric.target is None else [time_to_target_figure(analysis)]),
        step_ratio_figure(analysis),
        search_figure(analysis),
        *([] if analysis.effect_map is None else [effect_map_figure(analysis.effect_map)]),
        cost_figure(analysis.ledger),
    ]
    return {captioned.name: captioned for captioned in drawn}
