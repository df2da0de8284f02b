"""Performance profiles: the scores of an arm's runs in, the share of runs that reach each score out.

As rliable's (Agarwal et al. 2021, arXiv:2108.13264, section 4.2), of one task; of a metric of which less is better, the
share at or below each score. A run without a result reaches no score
and stays in the denominator, so the profile of an arm that loses runs starts below one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.proportion import proportion_confint

from qsgd_ray.analysis._rows import confirm_rows, final_value, has_ended
from qsgd_ray.analysis.statistics import Floats, Scores, evenly_spaced, finite, without_missing
from qsgd_ray.config import Metric
from qsgd_ray.results import StudyTables

# Thresholds of a study's profiles: more steps than a figure can show.
_MOST_THRESHOLDS = 300


@dataclass(frozen=True)
class Profile:
    """The share of runs that reach each threshold, with a band.

    Attributes:
        thresholds: float64, shape (t,), in the unit of the scores.
        share: float64, shape (t,): of the `n` runs, 0 to 1.
        low: float64, shape (t,): lower edge of the band.
        high: float64, shape (t,): upper edge of the band.
        n: runs.
        n_null: runs without a result among them.
    """

    thresholds: Floats
    share: Floats
    low: Floats
    high: Floats
    n: int
    n_null: int


@dataclass(frozen=True)
class StudyProfiles:
    """The profiles of a study's confirmation by test data.

    Attributes:
        thresholds: values of the metric in its unit, ascending; from a little below the smallest result to a little
            above the largest. None at all where no run has a result.
        by_arm: the profile of each arm that has a run, in the study's order.
        n_lost: runs that were lost with a process; the study tries them again, so they do not count.
    """

    thresholds: tuple[float, ...]
    by_arm: dict[str, Profile]
    n_lost: int


def performance_profile(
    scores: Scores, thresholds: ArrayLike, level: float = 0.95, direction: Literal["max", "min"] = "max"
) -> Profile | None:
    """Return the share of runs that reach each threshold, with Wilson's interval at each.

    Args:
        scores: one a run; None for a run without a result.
        thresholds: shape (t,), ascending, in the unit of the scores.
        level: coverage of the band at each threshold by itself, between 0 and 1.
        direction: `max`, where a run reaches a threshold at or below its score, or `min`, at or above it.

    Returns:
        The profile; None without a run.

    Example:
        >>> performance_profile([0.9, 0.8, None], [0.85]).share
        array([0.33333333])
    """
    n, at, results = len(scores), finite(thresholds), np.sort(without_missing(scores))
    if not n:
        return None
    if direction == "max":
        reached = len(results) - np.searchsorted(results, at, side="left")
    else:
        reached = np.searchsorted(results, at, side="right")
    # Pointwise, and open where the bootstrap's band of rliable would close: at a share of 0 or 1.
    low, high = proportion_confint(reached, n, alpha=1 - level, method="wilson")
    return Profile(at, reached / n, np.asarray(low), np.asarray(high), n, n - len(results))


def study_profiles(tables: StudyTables) -> StudyProfiles:
    """Return the profiles of all arms at common thresholds: every result of the study, or as many as can be seen."""
    metric = tables.study.metric
    rows = {arm.name: confirm_rows(tables, arm.name) for arm in tables.study.arms}
    scores = {arm: [final_value(row, metric) for row in arm_rows if has_ended(row)] for arm, arm_rows in rows.items()}
    results = sorted({score for of_arm in scores.values() for score in of_arm if score is not None})
    margin = max(0.05 * (results[-1] - results[0]), 0.002 * _size(results, metric)) if results else 0.0
    between = evenly_spaced(results, _MOST_THRESHOLDS)
    thresholds = (results[0] - margin, *between, results[-1] + margin) if results else ()
    profiles = {
        arm: performance_profile(of_arm, thresholds, direction=metric.direction) for arm, of_arm in scores.items()
    }
    return StudyProfiles(
        thresholds,
        {arm: profile for arm, profile in profiles.items() if profile is not None},
        sum(map(len, rows.values())) - sum(map(len, scores.values())),
    )


def _size(results: Sequence[float], metric: Metric) -> float:
    """Return the size of the values: 1 of a share, else that of the largest one."""
    return 1.0 if metric.kind == "share" else max(map(abs, results)) or 1.0
