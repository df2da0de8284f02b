"""Reporting: a `StudyAnalysis` in; its page, its figures and its tables for a terminal out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsgd_ray.reporting.figures import captioned_figures
    from qsgd_ray.reporting.page import render_page, write_report
    from qsgd_ray.reporting.terminal import arms_table, differences_table, study_report

__all__ = ["arms_table", "captioned_figures", "differences_table", "render_page", "study_report", "write_report"]

_MODULES = {
    "arms_table": "terminal",
    "captioned_figures": "figures",
    "differences_table": "terminal",
    "render_page": "page",
    "study_report": "terminal",
    "write_report": "page",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is used for the first time: plotly takes half a second to load."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
