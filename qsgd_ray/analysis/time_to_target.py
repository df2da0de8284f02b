"""Time to target: the times of an arm's runs in, None a miss; the median with its interval and a comparison out.

A miss is censored at the budget (protocol 7), however its run ended: who diverged at the third epoch did not leave the
race, as a Kaplan-Meier estimate censored there would have it, but will never arrive. With all misses censored at the
same time, later than every hit, Kaplan and Meier's survival function is the plain share of runs that are still on their
way: its median is that of times with infinity for a miss, its restricted mean that of times with the budget for a miss
(the tests compare both with statsmodels' SurvfuncRight).
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
    known,
    paired_differences,
)


@dataclass(frozen=True)
class TimeToTarget:
    """`median` None: the median run is a miss, or there is no run. `hits` of `n` runs reached the target.

    `interval` covers the true median at least 95 % of the time whatever the distribution, infinity being a miss; None
    where so few runs have none (below six).
    """

    median: float | None
    hits: int
    n: int
    interval: Interval | None = None

    @property
    def misses(self) -> int:
        return self.n - self.hits


@dataclass(frozen=True)
class Saved:
    """How much sooner than the baseline, pair by pair, in the unit of the budget; below zero: later.

    `misses`: of the pairs' runs, how many are counted with the whole budget.
    """

    mean: float
    interval: Interval | None
    n_pairs: int
    misses: int


def time_to_target(times: Scores) -> TimeToTarget:
    """Median time to target with every None a miss that is later than every hit."""
    hits = known(times)
    if np.any(hits < 0):
        raise ValueError(f"times: got {np.min(hits):g}; allowed: numbers >= 0, None for a miss")
    if not len(times):
        return TimeToTarget(None, 0, 0)
    clock = _with_misses_at(times, np.inf)
    median = float(np.median(clock))
    return TimeToTarget(median if np.isfinite(median) else None, len(hits), len(times), _median_interval(clock))


def saved(arm: Scores, baseline: Scores, budget: float) -> Saved | None:
    """The paired difference of restricted means, baseline less arm, with Student's interval.

    The k-th times are a pair. None where there is no pair, or no hit: then there is nothing to compare.
    """
    if len(arm) != len(baseline):
        raise ValueError(f"times: got {len(arm)} and {len(baseline)}; allowed: one of each pair")
    hits = np.concatenate([known(arm), known(baseline)])
    if np.any(hits > budget):
        raise ValueError(f"times: got {np.max(hits):g}; allowed: at most the budget of {budget:g}")
    if not len(hits):
        return None
    sooner = paired_differences(_with_misses_at(baseline, budget), _with_misses_at(arm, budget))
    return Saved(float(np.mean(sooner)), difference_interval(sooner), len(arm), 2 * len(arm) - len(hits))


def _with_misses_at(times: Scores, when: float) -> Floats:
    return np.array([when if time is None else time for time in times], dtype=np.float64)


def _median_interval(clock: Floats) -> Interval | None:
    # Two order statistics, by the binomial distribution: nothing is asked of what lies beyond the budget.
    found = stats.quantile_test(clock, q=0.0, p=0.5).confidence_interval(0.95)
    return None if np.isnan(found.low) or np.isnan(found.high) else Interval(float(found.low), float(found.high))
