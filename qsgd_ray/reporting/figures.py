"""The figures of a report by name: a `StudyAnalysis` in, plotly figures out."""

from __future__ import annotations

import plotly.graph_objects as go

from qsgd_ray.analysis.joint import JointAnalysis
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.reporting._all_figures import captioned_figures
from qsgd_ray.reporting._figures_joint import joint_figure


def figures(analysis: StudyAnalysis) -> dict[str, go.Figure]:
    """Return the plotly figures of a study's report by name, in reading order; those without rows are left out.

    The names: paired-differences, final-accuracy, performance-profiles, learning-curves, time-to-target, step-ratio,
    search, effect-map (where the study has a map) and costs-by-arm; no time-to-target for a metric without a target.
    """
    return {name: captioned.figure for name, captioned in captioned_figures(analysis).items() if captioned.figure}


def joint_figures(analysis: JointAnalysis) -> dict[str, go.Figure]:
    """Return the plotly figures of several workloads: `joint-scores`, and those of each as WORKLOAD/NAME."""
    joint = joint_figure(analysis)
    of_parts = {
        f"{workload}/{name}": figure
        for workload, part in analysis.parts.items()
        for name, figure in figures(part).items()
    }
    return ({joint.name: joint.figure} if joint.figure else {}) | of_parts
