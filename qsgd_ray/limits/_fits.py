"""Cost models: numbers measured at several sizes in; a fit, its predictions with intervals, the held-out size out.

Two families, both fitted in relative error (least squares of log measured - log predicted), so that microseconds weigh
as much as minutes and the unit does not matter:

- a sum of terms, none negative: what a call costs, what each qubit costs, what each amplitude costs ...; beyond some
  size, where a processor's first cache ends, work may cost more with every doubling: where, is fitted too;
- a line in the logarithm: what fades, or grows by a power.

The interval is that of a new measurement: Student's t, from the residuals and from what they leave open of the
coefficients. It knows the scatter and nothing of a law that ends: that is what the held-out size is for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls
from scipy.stats import t as student

Array = NDArray[np.float64]
LEVEL = 0.95
# A term that makes up less than this of every measurement is none.
NOTHING = 1e-6
# Bytes; a knee below would be none of memory.
SMALLEST_CACHE = 2.0**16


class Prediction(NamedTuple):
    """`low` ... `high`: where a new measurement of this size lies 95 % of the time."""

    value: float
    low: float
    high: float


class ScalingError(ValueError):
    """Too little, or nothing positive, to fit."""


@dataclass(frozen=True)
class Fit:
    """`coefficients` of the terms, in their order; the last is that of work beyond `knee` where there is a knee.

    `scatter`: standard deviation of log(measured / predicted). `freedom`: measurements less what was fitted to them.
    """

    logarithmic: bool
    coefficients: tuple[float, ...]
    knee: float | None
    scatter: float
    freedom: int
    covariance: Array  # of the coefficients, over scatter**2

    def predict(self, terms: Sequence[float], reach: float = 0.0) -> Prediction:
        """At these values of the terms. `reach`: how far the work goes, in the unit of the knee (bytes)."""
        x = _with_knee(np.array([terms], dtype=np.float64), np.array([reach]), self.knee)[0]
        beta = np.array(self.coefficients)
        centre = float(x @ beta)
        log_value = centre if self.logarithmic else math.log(max(centre, np.finfo(float).tiny))
        slope = x if self.logarithmic else x / max(centre, np.finfo(float).tiny)
        spread = self.scatter * math.sqrt(1 + float(slope @ self.covariance @ slope))
        half = _quantile(self.freedom) * spread
        return Prediction(*(math.exp(min(max(log_value + d, -700.0), 700.0)) for d in (0.0, -half, half)))


class HeldOut(NamedTuple):
    """The largest size, left out of the fit and then predicted. `error`: predicted over measured, less one."""

    measured: float
    predicted: Prediction
    error: float


def fit_sum(terms: Array, measured: Array, reach: Array | None = None) -> Fit:
    """measured ~ sum of coefficient * term, coefficients >= 0; `terms` is (sizes, terms), its last column the work.

    `reach`: how far each size's work goes (bytes). Then work beyond a knee may cost more with every doubling,
    terms @ coefficients + extra * work * log2(reach / knee), if that explains the measurements better by Akaike's
    criterion (corrected). Memory further away is slower, level by level; a step at one level predicted states of 20
    qubits and more too low.
    ScalingError: fewer sizes than terms and one more, or something that is not positive.
    """
    terms, measured = np.asarray(terms, dtype=np.float64), _positive(measured)
    if len(measured) < terms.shape[1] + 1:
        raise ScalingError(f"sizes: got {len(measured)}; allowed: at least {terms.shape[1] + 1} for so many terms")
    best = _fit_sum(terms, measured, None)
    if reach is None:
        return best
    reach = np.asarray(reach, dtype=np.float64)
    for knee in _knees(reach):
        if len(measured) < terms.shape[1] + 4:  # of its own: coefficient, knee, and two that it must explain
            break
        tried = _fit_sum(_with_knee(terms, reach, knee), measured, knee)
        if tried.coefficients[-1] > 0 and _akaike(tried, len(measured)) < _akaike(best, len(measured)):
            best = tried
    return best


def fit_log(terms: Array, measured: Array) -> Fit:
    """log(measured) ~ terms @ coefficients, of either sign: a power of log-sizes, an exponential of sizes."""
    terms, measured = np.asarray(terms, dtype=np.float64), _positive(measured)
    n, p = terms.shape
    if n < p + 1:
        raise ScalingError(f"sizes: got {n}; allowed: at least {p + 1} for so many terms")
    beta, *_ = np.linalg.lstsq(terms, np.log(measured), rcond=None)
    residuals = np.log(measured) - terms @ beta
    scatter = math.sqrt(float(residuals @ residuals) / (n - p))
    covariance = np.linalg.pinv(terms.T @ terms).astype(np.float64)
    return Fit(True, tuple(beta.tolist()), None, scatter, n - p, covariance)


def held_out(
    terms: Array, measured: Array, largest: int, reach: Array | None = None, *, logarithmic: bool = False
) -> tuple[Fit, HeldOut]:
    """The fit without the measurement at index `largest`, and what it says of that."""
    terms, measured = np.asarray(terms, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    kept = np.arange(len(measured)) != largest
    if logarithmic:
        fit = fit_log(terms[kept], measured[kept])
    else:
        fit = fit_sum(terms[kept], measured[kept], None if reach is None else reach[kept])
    actual = float(_positive(measured[largest : largest + 1])[0])
    predicted = fit.predict(terms[largest].tolist(), 0.0 if reach is None else float(reach[largest]))
    return fit, HeldOut(actual, predicted, predicted.value / actual - 1)


@lru_cache(maxsize=256)
def _quantile(freedom: int) -> float:
    """Of Student's t; a frontier asks for it thousands of times."""
    return float(student.ppf(0.5 + LEVEL / 2, freedom))


def _positive(measured: Array) -> Array:
    measured = np.asarray(measured, dtype=np.float64)
    if not (np.isfinite(measured).all() and (measured > 0).all()):
        raise ScalingError("measured: got numbers that are not positive and finite; allowed: positive ones")
    return measured


def _with_knee(terms: Array, reach: Array, knee: float | None) -> Array:
    if knee is None:
        return terms
    beyond = np.log2(np.maximum(reach, knee) / knee)
    return np.column_stack((terms, terms[:, -1] * beyond))


def _knees(reach: Array) -> Array:
    """Where a cache may end: from the smallest there is to the last reach but two, two a doubling."""
    steps = np.unique(reach)
    if len(steps) < 4 or steps[-3] <= SMALLEST_CACHE:
        return np.empty(0)
    first = max(steps[0], SMALLEST_CACHE)
    return np.geomspace(first, steps[-3], 2 + 2 * math.ceil(math.log2(steps[-3] / first)))


def _fit_sum(x: Array, measured: Array, knee: float | None) -> Fit:
    n = len(measured)
    scale = np.maximum(np.abs(x / measured[:, None]).max(0), np.finfo(float).tiny)  # terms of one size, for the solvers
    x_scaled = x / measured[:, None] / scale  # of measurements that are all 1
    start = nnls(x_scaled, np.ones(n))[0]

    def residuals(beta: Array) -> Array:
        return np.log(np.maximum(x_scaled @ beta, 1e-300))

    def slopes(beta: Array) -> Array:
        return x_scaled / np.maximum(x_scaled @ beta, 1e-300)[:, None]

    bounds = (0.0, np.inf)
    found = least_squares(residuals, np.maximum(start, 1e-9), slopes, bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    beta = np.where((x_scaled * found.x).max(0) < NOTHING, 0.0, found.x)
    active = beta > 0
    fitted = int(active.sum()) + (knee is not None)
    freedom = max(1, n - fitted)
    rest = residuals(beta)
    j = slopes(beta)[:, active]
    covariance = np.zeros((x.shape[1], x.shape[1]))
    covariance[np.ix_(active, active)] = np.linalg.pinv(j.T @ j)
    scatter = math.sqrt(float(rest @ rest) / freedom)
    return Fit(False, tuple((beta / scale).tolist()), knee, scatter, freedom, covariance / np.outer(scale, scale))


def _akaike(fit: Fit, n: int) -> float:
    p = n - fit.freedom + 1  # and the scatter
    squares = max(fit.scatter**2 * fit.freedom / n, 1e-24)  # below rounding all are equally good
    return n * math.log(squares) + 2 * p + (2 * p * (p + 1) / (n - p - 1) if n > p + 1 else math.inf)
