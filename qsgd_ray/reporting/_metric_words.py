"""Words around the values of a metric: the metric in; units for axes and sentences, and which side is better, out."""

from __future__ import annotations

from qsgd_ray.config import Metric


def in_unit(words: str, metric: Metric) -> str:
    """Return the name of an axis or a column with the unit of its values: test accuracy (%), test loss (nats)."""
    unit = "%" if metric.kind == "share" else metric.unit
    return f"{words} ({unit})" if unit else words


def of_unit(unit: str) -> str:
    """Return ` in UNIT` for a sentence; empty where there is no unit."""
    return f" in {unit}" if unit else ""


def value_unit(metric: Metric) -> str:
    """Return the unit of a metric's values in words: percent of a share."""
    return "percent" if metric.kind == "share" else metric.unit


def better_side(metric: Metric) -> str:
    """Return a sentence for a metric of which less is better; empty where more is."""
    return "" if metric.direction == "max" else " Less is better."
