"""Numbers for a verdict: arrays of results in, estimates, intervals and p values out.

Values keep the unit of what comes in. Missing values are the caller's business: nothing here takes null or NaN. Means
and intervals follow rliable (arXiv 2108.13264), whose bootstrap is stratified by task: a study has one. Tests are
scipy's and statsmodels'; where a number of theirs is computed here, the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

Floats = NDArray[np.float64]
# One a run, None where the run has none.
Scores = Sequence[float | None]
# Enough for the second decimal of a percentage point; the draw is seeded, so a report repeats itself exactly.
RESAMPLES = 2000
# Equal differences of decimal fractions differ in their last bits; 1e-12 is far below one test example.
DECIMALS = 12


class Interval(NamedTuple):
    low: float
    high: float


def proportion_interval(n_hits: int, n: int, level: float = 0.95) -> Interval:
    """Of a share of independent trials (Wilson). ValueError: more hits than trials, or no trial."""
    if not 0 <= n_hits <= n or n == 0:
        raise ValueError(f"n_hits: got {n_hits} of {n}; allowed: at least one trial, and no more hits than trials")
    low, high = proportion_confint(n_hits, n, alpha=1 - level, method="wilson")
    # None and all: rounding would leave these bounds off by 1e-16, on the wrong side of the share.
    return Interval(0.0 if n_hits == 0 else float(low), 1.0 if n_hits == n else float(high))


def finite(values: ArrayLike) -> Floats:
    """`values` as float64; ValueError where one is no finite number."""
    checked = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(checked)):
        raise ValueError(
            f"values: got {checked[~np.isfinite(checked)][0]}; allowed: finite numbers, None for a missing one"
        )
    return checked


def known(scores: Scores) -> Floats:
    """The scores that are there; the caller counts those that are not."""
    return finite([score for score in scores if score is not None])


def interquartile_mean(values: ArrayLike, axis: int = 0) -> Any:
    """Mean of the middle half; of fewer than four values the plain mean. ValueError where there is none."""
    if not np.size(values):
        raise ValueError("values: got none; allowed: at least one")
    return stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_band(values: Floats, level: float = 0.95) -> tuple[Floats, Floats] | None:
    """Percentile bootstrap interval of the interquartile mean of each column; rows are runs.

    None for fewer than two runs: one value says nothing about spread.
    """
    if len(values) < 2:
        return None
    # Every column is resampled by the same ranks, so that the order of rows cannot show.
    means = _kept(len(values)) @ np.sort(finite(values), axis=0)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return low, high


@lru_cache(maxsize=8)
def _kept(n: int) -> Floats:
    """What each rank of n values weighs in the interquartile mean of each resample, (RESAMPLES, n).

    scipy's bootstrap with `interquartile_mean` (the tests compare), which makes every resample of every column: for 300
    runs of 100 epochs half a gigabyte and seconds, where this is one product of matrices.
    """
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    cut = int(0.25 * n)
    ranks = np.sort(drawn, axis=1)[:, cut : n - cut]
    places = ranks + n * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(places.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n)
    return counts / ranks.shape[1]


def bootstrap_interval(values: Floats, level: float = 0.95) -> Interval | None:
    """Interval of the interquartile mean of `values`; None for fewer than two."""
    if len(values) >= 2 and np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]))
    band = bootstrap_band(values[:, None], level)
    return Interval(float(band[0][0]), float(band[1][0])) if band else None


def paired_differences(left: ArrayLike, right: ArrayLike) -> Floats:
    """left - right, pair by pair, free of the last bits that would turn equal differences into a spread."""
    if np.shape(left) != np.shape(right):
        raise ValueError(f"pairs: got {np.size(left)} and {np.size(right)} values; allowed: as many of each")
    return np.round(finite(left) - finite(right), DECIMALS)


def difference_interval(differences: Floats, level: float = 0.95) -> Interval | None:
    """Student's interval of the mean difference; a point where all are equal; None for fewer than two."""
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        return Interval(float(differences[0]), float(differences[0]))
    low, high = DescrStatsW(differences).tconfint_mean(1 - level)
    return Interval(float(low), float(high))


class Change(NamedTuple):
    """`value`: a ratio less one."""

    value: float
    interval: Interval | None


def relative_change(left: ArrayLike, right: ArrayLike, level: float = 0.95) -> Change | None:
    """mean(left) / mean(right) - 1 over pairs, with the percentile bootstrap's interval, whole pairs drawn.

    None without a pair, or where the right side has no positive mean. All values must be at least 0.
    """
    return _ratio_of(np.mean, left, right, level)


def relative_spread(left: ArrayLike, right: ArrayLike, level: float = 0.95) -> Change | None:
    """The same of standard deviations; None for fewer than three pairs, or where the right side has no spread."""
    return _ratio_of(_deviation, left, right, level) if np.size(left) >= 3 else None


def _deviation(values: Floats, axis: int = -1) -> Any:
    return np.std(values, axis=axis, ddof=1)


def _ratio_of(measure: Callable[..., Any], left: ArrayLike, right: ArrayLike, level: float) -> Change | None:
    a, b = finite(left), finite(right)
    if a.shape != b.shape:
        raise ValueError(f"pairs: got {a.size} and {b.size} values; allowed: as many of each")
    if not a.size or measure(b, axis=-1) <= 0:
        return None
    value = float(measure(a, axis=-1) / measure(b, axis=-1)) - 1

    def ratio(x: Floats, y: Floats, axis: int = -1) -> Any:
        below = measure(y, axis=axis)
        # A resample without spread says nothing; it may not become an infinity either.
        return np.divide(measure(x, axis=axis), below, out=np.full_like(below, value + 1), where=below > 0) - 1

    if a.size < 2:
        return Change(value, None)
    order = np.lexsort((b, a))  # the order of the pairs cannot show
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Change(value, Interval(value, value))
    interval = stats.bootstrap(
        (a[order], b[order]),
        ratio,
        paired=True,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Change(value, Interval(float(interval.low), float(interval.high)))


def p_different(differences: Floats) -> float:
    """Two-sided paired t test of "no difference": 1 where all are zero, 0 where all are one other value."""
    if np.ptp(differences) == 0:
        return 0.0 if differences[0] else 1.0
    return float(DescrStatsW(differences).ttest_mean(0.0)[1])


def p_equivalent(differences: Floats, margin: float) -> float:
    """Two one-sided t tests: p of "the mean difference is outside -margin..margin" (Schuirmann 1987)."""
    if np.ptp(differences) == 0:
        return 0.0 if abs(differences[0]) < margin else 1.0
    return float(DescrStatsW(differences).ttost_mean(-margin, margin)[0])


@lru_cache(maxsize=1024)
def p_sign(wins: int, losses: int) -> float:
    """Exact two-sided sign test; ties are left out by the caller; 1 where nothing is left."""
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's corrected p values, in the order given: the smallest of m times m, the next times m - 1, never falling.

    As statsmodels' multipletests, which collects garbage at every call (0.1 s in a large process).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return tuple(corrected.tolist())


def smallest_detectable_effect(differences: Floats, alpha: float, power: float) -> float | None:
    """The mean difference that so many pairs of this spread detect with `power` at two-sided level `alpha`."""
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        return 0.0
    return _detectable_in_deviations(len(differences), alpha, power) * float(np.std(differences, ddof=1))


@lru_cache(maxsize=256)
def _detectable_in_deviations(pairs: int, alpha: float, power: float) -> float:
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
