"""Stop points whose replicates are worse than the best point's: their values an epoch and seed in; True to stop, out.

Replicates of a point are trained side by side, so after an epoch each seed has a value, and the best point had one
after the same epoch from the same seed. A seed's difference has no part in what the seed itself brings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.analysis.objectives import RunResult, quality
from qsgd_ray.config import Metric

Values = Sequence[float | None]
# Further off than any difference that two runs with a value can have.
_WORST_DIFFERENCE = 1e300
# Equal differences of decimal fractions differ in their last bits.
_DECIMALS = 12


class ReplicatePruning:
    """The best point of an arm's search so far, and the curves of those under way.

    Only a point that ran to its end can be the best one.
    """

    def __init__(self, metric: Metric, threshold: float) -> None:
        self._metric, self._threshold = metric, threshold
        self._curves: dict[int, dict[int, Values]] = {}
        self._best: dict[int, Values] = {}
        self._best_quality: float | None = None

    def add(self, number: int, epoch: int, values: Values) -> None:
        """Add the values that a point has reached.

        Args:
            number: of the point in the arm's search.
            epoch: from 1.
            values: of the metric on validation data, one a seed; None where a run diverged or failed.
        """
        self._curves.setdefault(number, {})[epoch] = values

    def is_worse(self, number: int, epoch: int) -> bool:
        """Return True where a point is so far worse than the best one after an epoch that it is stopped.

        Args:
            number: of the point in the arm's search.
            epoch: one whose values were added.
        """
        best = self._best.get(epoch)
        return best is not None and are_worse(self._curves[number][epoch], best, self._metric, self._threshold)

    def end(self, number: int, completed: bool) -> None:
        """Take in that a point has ended: it may be the best one now.

        Args:
            number: of the point in the arm's search.
            completed: it ran to its end.
        """
        curve = self._curves.pop(number, {})
        if not completed or not curve:
            return
        reached = _quality(curve[max(curve)], self._metric) * self._metric.sign
        if self._best_quality is None or reached > self._best_quality:
            self._best, self._best_quality = curve, reached


def are_worse(values: Values, best: Values, metric: Metric, threshold: float) -> bool:
    """Return True where a point's values are worse than the best point's at a p value below the threshold.

    The test is Wilcoxon's, one-sided, over the seeds. As in Optuna's WilcoxonPruner a point whose quality, the
    interquartile mean, is no worse than the best one's goes on whatever the test says.

    Args:
        values: of the metric, one a seed; a run without one counts with the metric's worst.
        best: those of the best point, seed by seed after the same epoch.
        metric: of the decision.
        threshold: in (0, 1).
    """
    if _quality(values, metric) * metric.sign >= _quality(best, metric) * metric.sign:
        return False
    pairs = zip(values, best, strict=True)
    gains = [metric.sign * _difference(_value(mine, metric), _value(other, metric)) for mine, other in pairs]
    return signed_rank_p(np.array(gains)) < threshold


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Return the p value of Wilcoxon's signed-rank test against differences that lie below zero.

    It is exact, with ties and zeros: the share of all choices of signs whose ranks above zero have at most the observed
    sum. Zeros have ranks, and no sign (Pratt 1959).

    Args:
        differences: shape (n,), finite, n >= 1.

    Example:
        >>> signed_rank_p(np.array([-3.0, -1.0, -2.0])), signed_rank_p(np.array([-3.0, 1.0, -2.0]))
        (0.125, 0.25)
    """
    sizes = np.abs(differences)
    # Twice the mean rank of equal sizes, which is whole.
    ranks = 2 * (sizes[:, None] > sizes).sum(axis=1) + (sizes[:, None] == sizes).sum(axis=1) + 1
    above = int(ranks[differences > 0].sum())
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks[differences != 0]:
        with_it = np.zeros_like(chances)
        with_it[rank:] = chances[:-rank]
        chances = (chances + with_it) / 2
    return float(chances[: above + 1].sum())


def _quality(values: Values, metric: Metric) -> float:
    return quality([RunResult(value) for value in values], metric)


def _value(value: float | None, metric: Metric) -> float:
    return metric.worst if value is None or not math.isfinite(value) else value


def _difference(left: float, right: float) -> float:
    """Return left - right, finite; 0 between two runs without a value."""
    if left == right:
        return 0.0
    return max(-_WORST_DIFFERENCE, min(round(left - right, _DECIMALS), _WORST_DIFFERENCE))
