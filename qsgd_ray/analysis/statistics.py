"""Statistics of a verdict: arrays of results in; estimates, intervals and p values out.

Letters of shapes: n runs or pairs, c columns (one an epoch, say). Numbers keep the unit of what comes in. Nothing here
takes a null or NaN, apart from `without_missing`, which leaves nulls out. Means and bands follow rliable (Agarwal et
al. 2021, arXiv:2108.13264), whose bootstrap is stratified by task: a study has one. Tests are scipy's and statsmodels';
where a number of theirs is computed here, the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

T = TypeVar("T")

Floats = NDArray[np.float64]
# One a run, None where the run has none.
Scores = Sequence[float | None]
# Equal differences of decimal fractions differ in their last bits; 1e-12 is far below one test example.
DECIMALS = 12
# Enough for the second decimal of a percentage point; the draw is seeded, so a report repeats itself exactly.
_RESAMPLES = 2000


class Interval(NamedTuple):
    """A confidence interval, both edges included, in the unit of its estimate.

    Attributes:
        low: lower edge.
        high: upper edge, >= low.
    """

    low: float
    high: float

    def times(self, sign: int) -> Interval:
        """Return the interval of the estimate times 1 or -1."""
        return self if sign > 0 else Interval(0.0 - self.high, 0.0 - self.low)


class Estimate(NamedTuple):
    """A number with its interval.

    Attributes:
        value: a mean difference, or a relative change, of which 0.35 says that left is 35 % larger than right.
        interval: of the same quantity; None where it cannot be computed, as of a single pair.
    """

    value: float
    interval: Interval | None


def proportion_interval(n_hits: int, n: int, level: float = 0.95) -> Interval:
    """Return Wilson's interval of a share of independent trials.

    Args:
        n_hits: trials that hit, 0 to `n`.
        n: all trials, at least 1.
        level: coverage, between 0 and 1.

    Raises:
        ValueError: more hits than trials, or no trial.

    Example:
        >>> low, high = proportion_interval(5, 10)
        >>> round(low, 3), round(high, 3)
        (0.237, 0.763)
    """
    if not 0 <= n_hits <= n or n == 0:
        raise ValueError(f"n_hits: got {n_hits} of {n}; allowed: at least one trial, and no more hits than trials")
    low, high = proportion_confint(n_hits, n, alpha=1 - level, method="wilson")
    # None and all: rounding would leave these bounds off by 1e-16, on the wrong side of the share.
    return Interval(0.0 if n_hits == 0 else float(low), 1.0 if n_hits == n else float(high))


def finite(values: ArrayLike) -> Floats:
    """Return `values` as float64 of the same shape.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    checked = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(checked)):
        raise ValueError(
            f"values: got {checked[~np.isfinite(checked)][0]}; allowed: finite numbers, None for a missing one"
        )
    return checked


def without_missing(scores: Scores) -> Floats:
    """Return the scores that are not None, shape (n,); the caller counts those that are."""
    return finite([score for score in scores if score is not None])


def evenly_spaced(items: Sequence[T], most: int) -> Sequence[T]:
    """Return at most `most` of the items, evenly among them: the same ones whenever it is called.

    Args:
        items: in their order.
        most: at least 1; fewer items are returned as they are.

    Example:
        >>> evenly_spaced(range(100), 3)
        [0, 50, 99]
    """
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def interquartile_mean(values: ArrayLike, axis: int = 0) -> Any:
    """Return the mean of the middle half, of fewer than four values the plain mean (arXiv:2108.13264, section 4.3).

    With the values in order, x_1 <= ... <= x_n, and k = floor(n / 4) of them cut off at each end, it is

        (x_{k+1} + ... + x_{n-k}) / (n - 2 k)

    so how far out the k values at each end lie does not matter.

    Args:
        values: shape (n,) or (n, c), finite, which is not checked here (`finite` does).
        axis: the axis of the runs, along which it sorts; default 0, a row a run.

    Returns:
        A float64 number, or an array without that axis, in the unit of the values.

    Raises:
        ValueError: there is no value.

    Example:
        >>> float(interquartile_mean([0.0, 0.8, 0.9, 1.0]))
        0.8500000000000001
        >>> interquartile_mean([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [50.0, -90.0]]).tolist()  # of each column
        [2.5, 15.0]
    """
    if not np.size(values):
        raise ValueError("values: got none; allowed: at least one")
    return stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_band(values: Floats, level: float = 0.95) -> tuple[Floats, Floats] | None:
    """Return the percentile bootstrap interval of each column's interquartile mean.

    Runs are drawn with replacement 2,000 times, by a fixed seed. The order of the rows cannot show: every column is
    sorted, and all are resampled by the same ranks.

    Args:
        values: float64, shape (n, c), finite: a row a run.
        level: coverage, between 0 and 1.

    Returns:
        Lower and upper edges, shape (c,) each; None of fewer than two runs: one value says nothing about spread.
    """
    if len(values) < 2:
        return None
    means = _resample_weights(len(values)) @ np.sort(finite(values), axis=0)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return low, high


@lru_cache(maxsize=8)
def _resample_weights(n: int) -> Floats:
    """Return the weight of each rank of n values in the interquartile mean of each resample, (_RESAMPLES, n).

    scipy's bootstrap with `interquartile_mean` (the tests compare) makes every resample of every column: for 300
    runs of 100 epochs half a gigabyte and seconds, where this is one product of matrices.
    """
    drawn = np.random.default_rng(0).integers(0, n, (_RESAMPLES, n))
    cut = int(0.25 * n)
    ranks = np.sort(drawn, axis=1)[:, cut : n - cut]
    cells = ranks + n * np.arange(_RESAMPLES)[:, None]
    counts = np.bincount(cells.ravel(), minlength=_RESAMPLES * n).reshape(_RESAMPLES, n)
    return counts / ranks.shape[1]


def bootstrap_interval(values: Floats, level: float = 0.95) -> Interval | None:
    """Return the percentile bootstrap interval of the interquartile mean of `values`.

    Args:
        values: float64, shape (n,), finite.
        level: coverage, between 0 and 1.

    Returns:
        The interval, a point where all values are equal; None of fewer than two.
    """
    if len(values) >= 2 and np.ptp(values) == 0:
        return Interval(float(values[0]), float(values[0]))
    band = bootstrap_band(values[:, None], level)
    return Interval(float(band[0][0]), float(band[1][0])) if band else None


def paired_differences(left: ArrayLike, right: ArrayLike, decimals: int = DECIMALS) -> Floats:
    """Return left - right, pair by pair, rounded.

    Without the rounding, equal differences of decimal fractions would differ in their last bits and have a spread.

    Args:
        left: shape (n,), finite; the k-th numbers of both sides are a pair.
        right: shape (n,), finite, in the same unit.
        decimals: to round to; default: 12, which suits fractions of one.

    Raises:
        ValueError: the sides have different lengths.

    Example:
        >>> paired_differences([0.91, 0.93], [0.90, 0.92]).tolist()
        [0.01, 0.01]
    """
    if np.shape(left) != np.shape(right):
        raise ValueError(f"pairs: got {np.size(left)} and {np.size(right)} values; allowed: as many of each")
    return np.round(finite(left) - finite(right), decimals)


def difference_interval(differences: Floats, level: float = 0.95) -> Interval | None:
    """Return Student's interval of the mean difference, with n - 1 degrees of freedom.

    Args:
        differences: float64, shape (n,), as `paired_differences` returns them.
        level: coverage, between 0 and 1.

    Returns:
        The interval, a point where all differences are equal; None of fewer than two.
    """
    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        return Interval(float(differences[0]), float(differences[0]))
    low, high = DescrStatsW(differences).tconfint_mean(1 - level)
    return Interval(float(low), float(high))


def relative_change(left: ArrayLike, right: ArrayLike, level: float = 0.95) -> Estimate | None:
    """Return mean(left) / mean(right) - 1 over pairs, with a percentile bootstrap interval that draws whole pairs.

    Args:
        left: shape (n,), each at least 0; the k-th numbers of both sides are a pair.
        right: shape (n,), each at least 0, in the same unit.
        level: coverage, between 0 and 1.

    Returns:
        The change; None without a pair, or where the right side has no positive mean.

    Raises:
        ValueError: the sides have different lengths.

    Example:
        >>> relative_change([3.0, 3.0], [2.0, 2.0])
        Estimate(value=0.5, interval=Interval(low=0.5, high=0.5))
    """
    return _ratio_of(np.mean, left, right, level)


def _relative_median_change(left: ArrayLike, right: ArrayLike, level: float = 0.95) -> Estimate | None:
    """Return median(left) / median(right) - 1 over pairs, with the interval of `relative_change`.

    Args:
        left: shape (n,), each at least 0; the k-th numbers of both sides are a pair.
        right: shape (n,), each at least 0, in the same unit.
        level: coverage, between 0 and 1.

    Returns:
        The change; None without a pair, or where the right side's median is zero.

    Raises:
        ValueError: the sides have different lengths.
    """
    return _ratio_of(np.median, left, right, level)


def relative_spread(left: ArrayLike, right: ArrayLike, level: float = 0.95) -> Estimate | None:
    """Return the ratio of standard deviations over pairs less one, with the interval of `relative_change`.

    Args:
        left: shape (n,); the k-th numbers of both sides are a pair.
        right: shape (n,), in the same unit.
        level: coverage, between 0 and 1.

    Returns:
        The change; None of fewer than three pairs, or where the right side has no spread.

    Raises:
        ValueError: the sides have different lengths.
    """
    return _ratio_of(_deviation, left, right, level) if np.size(left) >= 3 else None


def _deviation(values: Floats, axis: int = -1) -> Any:
    return np.std(values, axis=axis, ddof=1)


def _ratio_of(measure: Callable[..., Any], left: ArrayLike, right: ArrayLike, level: float) -> Estimate | None:
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
        return Estimate(value, None)
    order = np.lexsort((b, a))  # so that the order of the pairs cannot show
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Estimate(value, Interval(value, value))
    interval = stats.bootstrap(
        (a[order], b[order]),
        ratio,
        paired=True,
        n_resamples=_RESAMPLES,
        confidence_level=level,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, Interval(float(interval.low), float(interval.high)))
