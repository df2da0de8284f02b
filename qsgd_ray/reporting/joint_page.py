"""The page of a study of several workloads: its joint analysis in, one self-contained HTML text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsgd_ray.analysis.joint import ESTIMAND, JOINT_SCORE, JointAnalysis
from qsgd_ray.reporting._formatting import FILTERS, VERDICT_SIGNS
from qsgd_ray.reporting.html import figure_values, render


def render_joint_page(analysis: JointAnalysis, tree: Mapping[str, Any]) -> str:
    """Return the whole page as HTML; it links to the page of each part, and loads nothing from a network.

    Args:
        analysis: of the whole study.
        tree: its document (`joint_document`).
    """
    # plotly takes half a second to load, and verdicts are also printed without a page.
    from qsgd_ray.reporting._figures_joint import joint_figure

    values = {
        "study": analysis.study,
        "parts": analysis.parts,
        "verdicts": analysis.verdicts,
        "cells": analysis.cells,
        "headline": analysis.headline,
        "notes": analysis.notes,
        "finished": tree["finished"],
        "estimand": ESTIMAND,
        "score": JOINT_SCORE,
        "signs": VERDICT_SIGNS,
        "figure": figure_values(joint_figure(analysis)),
    }
    return render("joint.html.j2", values, FILTERS)
