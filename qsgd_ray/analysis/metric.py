"""Values of a metric: rows, measurements and the study's metric in; numbers, and the texts of numbers, out.

Accuracy and loss have columns of their own. Every other metric stands in the column `metrics`, JSON by split and name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from qsgd_ray.config import Metric, StudyError
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.outcome import Measurement

if TYPE_CHECKING:
    from qsgd_ray.analysis.statistics import Floats  # it loads scipy, which a training process does without

Split = Literal["validation", "test"]

# Metrics whose values have columns, `SPLIT_NAME`.
_WITH_COLUMNS = ("accuracy", "loss")


def metric_value(row: dict[str, Any], split: Split, metric: Metric) -> float | None:
    """Return a row's value of a metric, in the metric's unit; None where it has none.

    Args:
        row: of the table of trials; of the table of measurements with the split `validation`.
        split: `validation` or `test`.
        metric: any one of the task.

    Raises:
        StudyError: the row's column `metrics` is no JSON of numbers by split and name.
    """
    if metric.name in _WITH_COLUMNS:
        value: float | None = row[f"{split}_{metric.name}"]
        return value
    text = row.get("metrics")
    return None if text is None else _value_in(text, split, metric.name, row["trial_id"])


def _value_in(text: str, split: Split, name: str, trial_id: str) -> float | None:
    try:
        value = (parse_json(text).get(split) or {}).get(name)
        return None if value is None else float(value)
    except (ValueError, TypeError, AttributeError):
        raise StudyError(
            f"the row of {trial_id}: got metrics that cannot be read; allowed: JSON of numbers by split and name"
        ) from None


def _metric_column(rows: pa.Table, metric: Metric) -> Floats:
    """Return the validation values of a table of measurements as float64, NaN where there is none.

    Args:
        rows: of the table of measurements.
        metric: any one of the task.
    """
    if metric.name in _WITH_COLUMNS:
        return np.asarray(rows[f"validation_{metric.name}"].to_numpy(), dtype=np.float64)
    if "metrics" not in rows.column_names:
        return np.full(rows.num_rows, np.nan)
    values = [metric_value(row, "validation", metric) for row in rows.select(["trial_id", "metrics"]).to_pylist()]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def measured_value(measurement: Measurement, metric: Metric) -> float | None:
    """Return the validation value of a metric after an epoch of a running trial; None where there is none.

    Args:
        measurement: the trial's last one.
        metric: any one of the task.
    """
    if metric.name in _WITH_COLUMNS:
        value: float | None = getattr(measurement, f"validation_{metric.name}")
        return value
    others: dict[str, float] = getattr(measurement, "metrics", None) or {}
    return others.get(metric.name)


def factor_of(metric: Metric) -> float:
    """Return the factor between a metric's values and what is shown: 100 of a share, which is shown in percent."""
    return 100 if metric.kind == "share" else 1


def unit_of(metric: Metric) -> str:
    """Return the unit of a metric's differences as they are shown: points of a share; empty where it has none."""
    return "points" if metric.kind == "share" else metric.unit


def number_text(value: float, metric: Metric, *, sign: bool = False) -> str:
    """Return a value or a difference without its unit: of a share in percent or points, else in four digits.

    Args:
        value: in the metric's unit, a fraction of one of a share.
        metric: its metric.
        sign: a plus before what is above zero.

    Example:
        >>> number_text(0.0123, Metric("accuracy", kind="share"), sign=True), number_text(-0.012345, Metric("loss"))
        ('+1.23', '−0.01235')
    """
    plus = "+" if sign else ""
    if metric.kind == "share":
        text = f"{100 * value:{plus}.2f}"
    else:
        rounded = float(f"{value:.4g}")
        text = f"{rounded:{plus},.0f}" if 1e4 <= abs(rounded) < 1e12 else f"{value:{plus}.4g}"
    return text.replace("-", "−")


def amount_text(value: float, metric: Metric, *, sign: bool = False) -> str:
    """Return a difference with its unit: 1.23 points, 0.0123 nats.

    Args:
        value: in the metric's unit, a fraction of one of a share.
        metric: its metric.
        sign: a plus before what is above zero.
    """
    return f"{number_text(value, metric, sign=sign)} {unit_of(metric)}".rstrip()
