"""Studies by a metric of their own, and their mirror images; no training."""

import json
from dataclasses import replace

import pyarrow as pa

from qsgd_ray.config import Metric, Study, TextTask
from qsgd_ray.results import StudyTables

SCORE = Metric("score", unit="marks", target=3.2)


class ScoreTask(TextTask):
    """The text task, with a score as its metric: four marks times accuracy."""

    @property
    def metrics(self):
        """The score alone."""
        return (SCORE,)


class PenaltyTask(TextTask):
    """The text task, with a penalty as its metric: the score with the other sign, of which less is better."""

    @property
    def metrics(self):
        """The score's mirror image alone."""
        return (mirrored(SCORE),)


def mirrored(metric: Metric) -> Metric:
    """Return the metric of negated values, with the other direction."""
    direction = "min" if metric.direction == "max" else "max"
    return metric.model_copy(update={"direction": direction, "target": -metric.target})


def by_score(study: Study) -> Study:
    """Return a study that decides by the score, with four times its margin, as a score is four times an accuracy."""
    task = ScoreTask(**study.workload.model_dump())
    margin = 4 * study.decision.margin
    return study.model_copy(update={"workload": task, "decision": study.decision.model_copy(update={"margin": margin})})


def by_penalty(study: Study) -> Study:
    """Return the mirror image of `by_score`."""
    return by_score(study).model_copy(update={"workload": PenaltyTask(**study.workload.model_dump())})


def scored(tables: StudyTables, study: Study) -> StudyTables:
    """Return tables with the column `metrics`, of the metric of this study: `by_score` or `by_penalty` of theirs."""
    return replace(
        tables,
        study=study,
        trials=_with_metrics(tables.trials, study, ("validation", "test")),
        measurements=_with_metrics(tables.measurements, study, ("validation",)),
    )


def _with_metrics(rows: pa.Table, study: Study, splits) -> pa.Table:
    values = []
    for row in rows.to_pylist():
        by_split = {}
        for split in splits:
            accuracy = row[f"{split}_accuracy"]
            value = None if accuracy is None else 4 * accuracy * study.metric.sign
            by_split[split] = {study.metric.name: value}
        values.append(json.dumps(by_split))
    index = rows.column_names.index("metrics")
    return rows.set_column(index, "metrics", pa.array(values, pa.string()))
