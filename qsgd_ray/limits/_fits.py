"""Fit cost models to measurements at several sizes, and predict the held-out size with an interval.

Two families, both fitted in relative error (least squares of log measured - log predicted), so that microseconds weigh
as much as minutes and the unit does not matter:

- a sum of terms, none negative: the cost of a call, of each qubit, of each amplitude ...; beyond some size, where a
  processor's first cache ends, work may cost more with every doubling: that size is fitted too;
- a line in the logarithm: for quantities that fade, or grow by a power.

The interval is that of a new measurement: Student's t, from the residuals and from the uncertainty of the coefficients.
It covers scatter and not a law that ends: the held-out size is there for that.
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
# A term below this share of every measurement counts as zero.
NOTHING = 1e-6
# Bytes; a knee below this would not come from memory.
SMALLEST_CACHE = 2.0**16


class Prediction(NamedTuple):
    """Predicted value, and the interval in which a new measurement of this size lies 95 % of the time."""

    value: float
    low: float
    high: float


class ScalingError(ValueError):
    """Raised where there is too little, or nothing positive, to fit."""


@dataclass(frozen=True)
class Fit:
    """A fitted cost model.

    Attributes:
        logarithmic: whether the logarithm is a line of the terms.
        coefficients: of the terms, in their order; the last is that of work beyond `knee` where there is a knee.
        knee: bytes of work beyond which each doubling costs more; None: no knee.
        scatter: standard deviation of log(measured / predicted).
        freedom: measurements less the fitted numbers.
        covariance: of the coefficients, over scatter**2.
    """

    logarithmic: bool
    coefficients: tuple[float, ...]
    knee: float | None
    scatter: float
    freedom: int
    covariance: Array  # of the coefficients, over scatter**2

    def predict(self, terms: Sequence[float], reach: float = 0.0) -> Prediction:
        """Predict at these values of the terms; `reach`: how far the work goes, in the unit of the knee (bytes)."""
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
    """Fit measured ~ sum of coefficient * term, coefficients >= 0.

    Where `reach` is given, work beyond a knee may cost more with every doubling, terms @ coefficients + extra * work *
    log2(reach / knee), if that explains the measurements better by Akaike's criterion (corrected). Memory further away
    is slower, level by level; a single step predicted states of 20 qubits and more too low.

    Args:
        terms: shape (sizes, terms); the last column is the work.
        measured: shape (sizes,), positive.
        reach: bytes that each size's work goes through, shape (sizes,); None: no knee.

    Raises:
        ScalingError: fewer sizes than terms and one more, or a measurement that is not positive.
    """
    terms, measured = np.asarray(terms, dtype=np.float64), _positive(measured)
    if len(measured) < terms.shape[1] + 1:
        raise ScalingError(f"sizes: got {len(measured)}; allowed: at least {terms.shape[1] + 1} for so many terms")
    best = _fit_sum(terms, measured, None)
    if reach is None:
        return best
    reach = np.asarray(reach, dtype=np.float64)
    for knee in _knees(reach):
        if len(measured) < terms.shape[1] + 4:  # two for coefficient and knee, and two that it must explain
            break
        candidate = _fit_sum(_with_knee(terms, reach, knee), measured, knee)
        if candidate.coefficients[-1] > 0 and _akaike(candidate, len(measured)) < _akaike(best, len(measured)):
            best = candidate
    return best


def fit_log(terms: Array, measured: Array) -> Fit:
    """Fit log(measured) ~ terms @ coefficients, of either sign: a power of log-sizes, an exponential of sizes."""
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
    """Return the fit without the measurement at index `largest`, and the prediction for it."""
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
    """Return the quantile of Student's t; a frontier needs it thousands of times."""
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
    """Return candidates for the end of a cache: from the smallest to the last reach but two, two a doubling."""
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
    solution = least_squares(residuals, np.maximum(start, 1e-9), slopes, bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    beta = np.where((x_scaled * solution.x).max(0) < NOTHING, 0.0, solution.x)
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
