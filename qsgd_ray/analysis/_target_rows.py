"""Times to the target of the study's metric: rows of trials in, the same rows with these times out."""

from __future__ import annotations

from qsgd_ray.analysis._rows import Row
from qsgd_ray.analysis.metric import _metric_column
from qsgd_ray.config import Metric
from qsgd_ray.results import StudyTables

_COLUMNS = {
    "epochs_to_target": "epoch",
    "steps_to_target": "step",
    "seconds_to_target": "wall_s",
    "circuit_wait_s_to_target": "circuit_wait_s",
}


def with_times_to_target(tables: StudyTables, rows: list[Row]) -> list[Row]:
    """Return rows of trials whose times to target are those of the metric that the study decides by.

    Rows bear the times to the target accuracy of tasks that have one. Of any other metric the times are those of
    the first measurement at its target; None where a run missed it, and where the metric has none.

    Args:
        tables: the study and its measurements.
        rows: of its table of trials.
    """
    metric = tables.study.metric
    target_accuracy = getattr(tables.study.workload, "target_accuracy", None)
    if metric.name == "accuracy" and metric.target is not None and metric.target == target_accuracy:
        return rows
    return [row | _times(tables, row, metric) for row in rows]


def _times(tables: StudyTables, row: Row, metric: Metric) -> Row:
    if metric.target is None:
        return dict.fromkeys(_COLUMNS)
    measurements = tables.curve(row["trial_id"])
    values = _metric_column(measurements, metric)
    first = next((i for i, value in enumerate(values.tolist()) if metric.reaches_target(value)), None)
    return {name: None if first is None else measurements[column][first].as_py() for name, column in _COLUMNS.items()}
