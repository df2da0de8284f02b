"""Time to target: the times of an arm's runs in, None for a miss; median with interval, and a comparison, out.

A miss is censored at the budget (protocol 7), however its run ended: a run that diverged at the third epoch has not
left the race, as a Kaplan-Meier estimate censored there would have it, but will never arrive. With all misses censored
at the same time, later than every hit, Kaplan and Meier's survival function is the plain share of runs that are still
on their way: its median is that of times with infinity for a miss, its restricted mean that of times with the budget
for a miss (the tests compare both with statsmodels' SurvfuncRight).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from qsgd_ray.analysis.statistics import (
    Floats,
    Interval,
    Scores,
    difference_interval,
    paired_differences,
    without_missing,
)


@dataclass(frozen=True)
class TimeToTarget:
    """The median time that the runs of an arm took to the target.

    Attributes:
        median: in the unit of the times; None where the median run is a miss, or where there is no run.
        hits: runs that reached the target.
        n: all runs.
        interval: covers the true median at least 95 % of the time whatever the distribution; infinity stands for a
            miss. None of fewer than six runs, which have no such interval.
    """

    median: float | None
    hits: int
    n: int
    interval: Interval | None = None

    @property
    def misses(self) -> int:
        """Runs that did not reach the target."""
        return self.n - self.hits


@dataclass(frozen=True)
class TimeSaved:
    """The time by which an arm reaches the target sooner than the baseline, pair by pair.

    Attributes:
        mean: in the unit of the budget; below zero: later.
        interval: Student's 95 % interval of the mean; None of a single pair.
        n_pairs: pairs of runs.
        misses: runs of these pairs that are counted with the whole budget.
    """

    mean: float
    interval: Interval | None
    n_pairs: int
    misses: int


def median_time(times: Scores) -> TimeToTarget:
    """Return the median time to target; a miss is later than every hit.

    Args:
        times: one a run, >= 0, in any unit; None for a miss.

    Raises:
        ValueError: a time is below zero.

    Example:
        >>> median_time([3.0, 4.0, None])
        TimeToTarget(median=4.0, hits=2, n=3, interval=None)
    """
    hits = without_missing(times)
    if np.any(hits < 0):
        raise ValueError(f"times: got {np.min(hits):g}; allowed: numbers >= 0, None for a miss")
    if not len(times):
        return TimeToTarget(None, 0, 0)
    clock = _with_misses_at(times, np.inf)
    median = float(np.median(clock))
    return TimeToTarget(median if np.isfinite(median) else None, len(hits), len(times), _median_interval(clock))


def time_saved(arm: Scores, baseline: Scores, budget: float) -> TimeSaved | None:
    """Return the paired difference of restricted mean times, baseline less arm, with Student's interval.

    Args:
        arm: one time a run, >= 0; None for a miss. The k-th times of both sides are a pair.
        baseline: one time a run, likewise.
        budget: the time at which a run ends; a miss counts with it.

    Returns:
        The time saved; None where there is no pair or no hit, so nothing to compare.

    Raises:
        ValueError: the sides have different lengths, or a time lies beyond the budget.
    """
    if len(arm) != len(baseline):
        raise ValueError(f"times: got {len(arm)} and {len(baseline)}; allowed: one of each pair")
    hits = np.concatenate([without_missing(arm), without_missing(baseline)])
    if np.any(hits > budget):
        raise ValueError(f"times: got {np.max(hits):g}; allowed: at most the budget of {budget:g}")
    if not len(hits):
        return None
    sooner = paired_differences(_with_misses_at(baseline, budget), _with_misses_at(arm, budget))
    return TimeSaved(float(np.mean(sooner)), difference_interval(sooner), len(arm), 2 * len(arm) - len(hits))


def _with_misses_at(times: Scores, when: float) -> Floats:
    """Return the times with every miss set to the moment given."""
    return np.array([when if time is None else time for time in times], dtype=np.float64)


def _median_interval(clock: Floats) -> Interval | None:
    # Two order statistics, by the binomial distribution: the times beyond the budget need not be known.
    low, high = stats.quantile_test(clock, q=0.0, p=0.5).confidence_interval(0.95)
    return None if np.isnan(low) or np.isnan(high) else Interval(float(low), float(high))
