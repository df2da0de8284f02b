"""Pairs of runs: the rows of two arms in; their differences by seed, and the pairs without one, counted, out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._rows import Row, final_value, has_ended
from qsgd_ray.analysis.metric import Split
from qsgd_ray.analysis.statistics import Floats
from qsgd_ray.config import ACCURACY, Metric


@dataclass(frozen=True)
class Pairs:
    """An arm's runs against the baseline's, paired by seed.

    Attributes:
        differences: float64, shape (n,): arm - baseline in the metric's unit, of the n complete pairs, in which both
            runs have a result.
        arm_lost: pairs in which the arm's run alone has no result.
        baseline_lost: pairs in which the baseline's run alone has none.
        both_lost: pairs in which neither has one.
        pending: pairs of which a run has yet to end.
        decimals: to which the differences are rounded.
    """

    differences: Floats
    arm_lost: int = 0
    baseline_lost: int = 0
    both_lost: int = 0
    pending: int = 0
    decimals: int = statistics.DECIMALS

    @property
    def n(self) -> int:
        """Complete pairs."""
        return len(self.differences)

    @property
    def n_lost(self) -> int:
        """Pairs that have ended with a run without a result."""
        return self.arm_lost + self.baseline_lost + self.both_lost

    def gains(self, metric: Metric) -> Pairs:
        """Return the pairs with differences that are above zero where the arm is better, as `signs` takes them."""
        return replace(self, differences=metric.sign * self.differences + 0.0)  # and no zero with a minus

    def signs(self, margin: float) -> tuple[int, int, int]:
        """Return the pairs that the arm wins, ties and loses, where more is better.

        A run without a result loses to one with a result; two such runs tie.

        Args:
            margin: differences closer to zero than this are ties; >= 0, in their unit.
        """
        wins = int(np.sum((self.differences >= margin) & (self.differences > 0))) + self.baseline_lost
        losses = int(np.sum((self.differences <= -margin) & (self.differences < 0))) + self.arm_lost
        return wins, self.n + self.n_lost - wins - losses, losses


_Lack = Literal["arm_lost", "baseline_lost", "both_lost", "pending"]
# Results of the arm's and the baseline's run at a seed, None of a run without one. None: a run has yet to end.
_SeedRuns = tuple[float | None, float | None] | None


def pair_by_seed(
    arm: Sequence[Row],
    baseline: Sequence[Row],
    seeds: Sequence[int],
    metric: Metric = ACCURACY,
    split: Split = "test",
) -> Pairs:
    """Return the runs of two arms as pairs.

    A row that was lost with a process is tried again, so it leaves its pair pending.

    Args:
        arm: rows of trials, at most one a seed.
        baseline: rows of trials, at most one a seed.
        seeds: all that the study plans; a seed without both rows is pending.
        metric: what is compared; default: accuracy.
        split: the data that it was measured on; default: test data.
    """
    return _pairs_of_runs(_runs_by_seed(arm, baseline, seeds, metric, split), metric)


def _runs_by_seed(
    arm: Sequence[Row],
    baseline: Sequence[Row],
    seeds: Sequence[int],
    metric: Metric = ACCURACY,
    split: Split = "test",
) -> dict[int, _SeedRuns]:
    """Return the results of two arms by seed, every planned seed once.

    Args:
        arm: rows of trials, at most one a seed.
        baseline: rows of trials, at most one a seed.
        seeds: all that the study plans.
        metric: what is compared; default: accuracy.
        split: the data that it was measured on; default: test data.
    """
    left, right = ({row["seed"]: row for row in rows} for rows in (arm, baseline))
    runs: dict[int, _SeedRuns] = {}
    for seed in seeds:
        rows = (left.get(seed), right.get(seed))
        ended = [row for row in rows if row is not None and has_ended(row)]
        runs[seed] = None
        if len(ended) == 2:
            runs[seed] = final_value(ended[0], metric, split), final_value(ended[1], metric, split)
    return runs


def _pairs_of_runs(runs: Mapping[int, _SeedRuns], metric: Metric) -> Pairs:
    """Return results by seed as pairs.

    Args:
        runs: the arm's and the baseline's results by seed; the differences stand in the order of the complete ones.
        metric: of the results.
    """
    complete = [pair for pair in runs.values() if _lack_of(pair) is None]
    values = np.array(complete, dtype=np.float64).reshape(-1, 2)
    decimals = _decimals(values, metric)
    differences = statistics.paired_differences(values[:, 0], values[:, 1], decimals)
    counts: Counter[str] = Counter(lack for pair in runs.values() if (lack := _lack_of(pair)) is not None)
    return Pairs(differences, **counts, decimals=decimals)


def _lack_of(pair: _SeedRuns) -> _Lack | None:
    """Return the field of `Pairs` that counts such a pair of results; None where both are there."""
    if pair is None:
        return "pending"
    a, b = (result is None for result in pair)
    return "both_lost" if a and b else "arm_lost" if a else "baseline_lost" if b else None


def _decimals(values: Floats, metric: Metric) -> int:
    """Return the decimals that differences are rounded to: of a share 12, else so many less as the values are larger.

    The size of other values is not known: rounded to a fixed number of decimals, small ones would lose their digits.
    """
    largest = float(np.max(np.abs(values), initial=0.0))
    if metric.kind == "share" or not largest:
        return statistics.DECIMALS
    return statistics.DECIMALS - math.ceil(math.log10(largest))
