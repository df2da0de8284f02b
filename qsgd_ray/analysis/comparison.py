"""Two studies side by side: their analyses in; the settings that differ, and the arms of the same name compared, out.

It answers the question after a change of machine, version or setting: is it the same experiment, with the same results?
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._rows import Row, confirm_rows, final_value, median, seconds_per_step
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.analysis.summary import ArmSummary
from qsgd_ray.config import ACCURACY, Metric
from qsgd_ray.paths import leaves

# Entries of provenance that always differ and mean nothing: when and how often something ran.
_IGNORED = ("started_at", "resumed")


@dataclass(frozen=True)
class Difference:
    """A leaf of the settings or of the provenance that differs between two studies.

    Attributes:
        what: `setting` or `provenance`.
        path: of the leaf, dotted.
        left: its value as JSON; None where the left study has no such leaf.
        right: its value as JSON; None likewise.
    """

    what: str
    path: str
    left: str | None
    right: str | None


@dataclass(frozen=True)
class ArmComparison:
    """An arm that both studies have; None where a study lacks the number.

    Attributes:
        arm: its name.
        left: its confirmation in the left study.
        right: its confirmation in the right study.
        n_pairs: seeds with a result in both.
        difference: mean of right - left over them, in the metric's unit; None where the studies decide by different
            metrics.
        interval: Student's 95 % interval of the difference.
        n_hashed: seeds at which both studies have a hash of the final parameters.
        n_same_bits: of them, those at which the hashes are equal.
        left_s_per_step: seconds an optimizer step in the left study, median over runs.
        right_s_per_step: the same in the right study.
        step_time_interval: 95 % bootstrap interval of `step_time_ratio`, over the seeds that both studies have.
    """

    arm: str
    left: ArmSummary
    right: ArmSummary
    n_pairs: int
    difference: float | None
    interval: Interval | None
    n_hashed: int
    n_same_bits: int
    left_s_per_step: float | None
    right_s_per_step: float | None
    step_time_interval: Interval | None

    @property
    def step_time_ratio(self) -> float | None:
        """Seconds a step, right over left."""
        if not self.left_s_per_step or self.right_s_per_step is None:
            return None
        return self.right_s_per_step / self.left_s_per_step


@dataclass(frozen=True)
class Comparison:
    """The differences between two studies, and their common arms.

    Attributes:
        differences: settings first, then provenance.
        arms: those that both have, in the left study's order.
        only_left: names of arms that the right study lacks.
        only_right: names of arms that the left study lacks.
        metrics: of the left and the right study's decision.
    """

    differences: tuple[Difference, ...]
    arms: tuple[ArmComparison, ...]
    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    metrics: tuple[Metric, Metric] = (ACCURACY, ACCURACY)


def compare(left: StudyAnalysis, right: StudyAnalysis) -> Comparison:
    """Return what differs between two studies, and their common arms seed by seed.

    Args:
        left: the study before a change.
        right: the study after it.
    """
    names = [[arm.name for arm in analysis.study.arms] for analysis in (left, right)]
    both = [name for name in names[0] if name in names[1]]
    settings = [_settings(analysis, both) for analysis in (left, right)]
    records = [{k: v for k, v in analysis.provenance.items() if k not in _IGNORED} for analysis in (left, right)]
    return Comparison(
        (*_differences("setting", *settings), *_differences("provenance", *records)),
        tuple(_compare_arm(name, left, right) for name in both),
        tuple(name for name in names[0] if name not in both),
        tuple(name for name in names[1] if name not in both),
        (left.metric, right.metric),
    )


def _settings(analysis: StudyAnalysis, arms: list[str]) -> dict[str, Any]:
    """Return a study's settings with these arms alone: an arm that the other study lacks is named as a whole."""
    tree = analysis.study.model_dump(mode="json")
    return tree | {"arms": [arm for arm in tree["arms"] if arm["name"] in arms]}


def _compare_arm(arm: str, left: StudyAnalysis, right: StudyAnalysis) -> ArmComparison:
    before, after = ({row["seed"]: row for row in confirm_rows(study.tables, arm)} for study in (left, right))
    seeds = [seed for seed in before if seed in after]
    metric = left.metric
    comparable = (metric.name, metric.direction) == (right.metric.name, right.metric.direction)
    results = [(final_value(before[s], metric), final_value(after[s], metric)) for s in seeds if comparable]
    pairs = np.array([pair for pair in results if None not in pair], dtype=np.float64).reshape(-1, 2)
    differences = statistics.paired_differences(pairs[:, 1], pairs[:, 0])
    hashes = [(before[seed]["parameters_sha256"], after[seed]["parameters_sha256"]) for seed in seeds]
    hashed = [pair for pair in hashes if None not in pair]
    return ArmComparison(
        arm=arm,
        left=_summary_of(left, arm),
        right=_summary_of(right, arm),
        n_pairs=len(differences),
        difference=float(np.mean(differences)) if len(differences) else None,
        interval=statistics.difference_interval(differences),
        n_hashed=len(hashed),
        n_same_bits=sum(a == b for a, b in hashed),
        left_s_per_step=_s_per_step(list(before.values())),
        right_s_per_step=_s_per_step(list(after.values())),
        step_time_interval=_step_time_interval([(before[seed], after[seed]) for seed in seeds]),
    )


def _summary_of(analysis: StudyAnalysis, arm: str) -> ArmSummary:
    return next(summary for summary in analysis.summaries if summary.arm == arm)


def _s_per_step(rows: list[Row]) -> float | None:
    """Return the median over the runs; evaluation aside."""
    return median([seconds for row in rows if (seconds := seconds_per_step(row)) is not None])


def _step_time_interval(pairs: list[tuple[Row, Row]]) -> Interval | None:
    """Return the interval of the ratio of seconds a step, right over left; None of fewer than two pairs."""
    seconds = [(seconds_per_step(left), seconds_per_step(right)) for left, right in pairs]
    known = [(left, right) for left, right in seconds if left is not None and right is not None]
    change = statistics._relative_median_change([right for _, right in known], [left for left, _ in known])
    if change is None or change.interval is None:
        return None
    return Interval(1 + change.interval.low, 1 + change.interval.high)


def _differences(what: str, left: Any, right: Any) -> Iterator[Difference]:
    before, after = ({path: _as_json(value) for path, value in leaves(tree)} for tree in (left, right))
    for path in [*before, *(path for path in after if path not in before)]:
        if before.get(path) != after.get(path):
            yield Difference(what, path, before.get(path), after.get(path))


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
