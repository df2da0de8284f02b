"""Tests of paired differences: p values, their correction, and the smallest effect that a test would have shown.

Letters of shapes: n pairs of runs. Differences are those of `statistics.paired_differences`, margins are in their unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.weightstats import DescrStatsW

from qsgd_ray.analysis.statistics import Floats


def paired_t_p_value(differences: Floats) -> float:
    """Return the p value of the two-sided paired t test of "the mean difference is zero".

    Args:
        differences: float64, shape (n,), n >= 2.

    Returns:
        0 to 1. Without spread the t statistic has no value: 1 where all differences are zero, else 0.

    Example:
        >>> round(paired_t_p_value(np.array([0.01, 0.02, 0.03])), 3)
        0.074
    """
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] else 1.0
    return float(DescrStatsW(differences).ttest_mean(0.0)[1])


def tost_p_value(differences: Floats, margin: float) -> float:
    """Return the p value of two one-sided t tests of "the mean difference lies outside -margin..margin".

    TOST (Schuirmann 1987, doi:10.1007/BF01068419): a small p shows equivalence.

    Args:
        differences: float64, shape (n,), n >= 2.
        margin: > 0, in the unit of the differences.

    Returns:
        The larger of the two one-sided p values. Without spread: 0 where the difference lies within the margin, else 1.
    """
    if np.ptp(differences) == 0:
        return 0.0 if abs(differences[0]) < margin else 1.0
    return float(DescrStatsW(differences).ttost_mean(-margin, margin)[0])


@lru_cache(maxsize=1024)
def sign_test_p_value(wins: int, losses: int) -> float:
    """Return the p value of the exact two-sided sign test of "a win is as probable as a loss".

    Args:
        wins: pairs won, >= 0; ties are left out.
        losses: pairs lost, >= 0.

    Returns:
        That of the binomial distribution with p = 1/2; 1 where there is neither a win nor a loss.

    Example:
        >>> sign_test_p_value(5, 0)
        0.0625
    """
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p values corrected for their number by Holm's step-down method (Holm 1979), in the order given.

    The smallest of m is multiplied by m, the next by m - 1, and so on; a corrected value never lies below the one
    before it, nor above 1. Equal to statsmodels' `multipletests`, which collects garbage at every call (0.1 s in a
    large process).

    Args:
        p_values: m of them, each 0 to 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return tuple(corrected.tolist())


def smallest_detectable_effect(differences: Floats, alpha: float, power: float) -> float | None:
    """Return the mean difference that so many pairs of this spread detect with the power asked for.

    Args:
        differences: float64, shape (n,).
        alpha: level of the two-sided paired t test, between 0 and 1.
        power: probability of detection, between `alpha` and 1.

    Returns:
        In the unit of the differences, >= 0; None of fewer than two pairs.
    """
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        return 0.0
    return _detectable_in_deviations(len(differences), alpha, power) * float(np.std(differences, ddof=1))


@lru_cache(maxsize=256)
def _detectable_in_deviations(pairs: int, alpha: float, power: float) -> float:
    """Return the effect, in standard deviations of the differences, at which the t test has this power."""
    # statsmodels' TTestPower adds the far tail, scipy 1.17 answers NaN there for large effects, and solve_power then
    # returns wrong roots without a word (measured: 5 pairs, alpha 0.0005). Finding the wrong sign is no detection
    # anyway, so the tail is left out; where solve_power is right the two agree (tests).
    critical = stats.t.isf(alpha / 2, pairs - 1)

    def missing(effect: float) -> float:
        return float(stats.nct.sf(critical, pairs - 1, effect * np.sqrt(pairs))) - power

    high = 1.0
    while missing(high) < 0:
        high *= 2
    return float(optimize.brentq(missing, 0.0, high))
