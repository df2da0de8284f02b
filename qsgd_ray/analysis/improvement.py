"""The probability that an arm beats the baseline: runs or counts of wins in, a share with its interval out.

rliable's P(improvement) (Agarwal et al. 2021, arXiv 2108.13264): the chance that a run of the arm is better than a run
of the baseline, a tie being half a win. Paired, a run meets the baseline's run of its seed; unpaired, every run meets
every other, which is Mann and Whitney's U. A run without a result loses to one with a result, and two such tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from qsgd_ray.analysis.statistics import Interval, Scores, without_missing


@dataclass(frozen=True)
class Improvement:
    """The probability that a run of the arm beats a run of the baseline; a tie is half a win.

    Attributes:
        probability: 0 to 1.
        interval: of the probability.
        n: pairs of one seed; where not `paired`, the runs of the smaller side.
        paired: runs of one seed were compared, else every run with every other.
    """

    probability: float
    interval: Interval
    n: int
    paired: bool


def paired_improvement(wins: int, ties: int, losses: int, level: float = 0.95) -> Improvement | None:
    """Return the share of pairs that are won, with Wilson's interval.

    Args:
        wins: pairs won, >= 0.
        ties: pairs tied, >= 0; each is half a win.
        losses: pairs lost, >= 0.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The improvement; None without a pair.

    Raises:
        ValueError: a count is below zero.

    Example:
        >>> paired_improvement(8, 1, 1).probability
        0.85
    """
    if min(wins, ties, losses) < 0:
        raise ValueError(f"wins, ties, losses: got {wins}, {ties}, {losses}; allowed: counts >= 0")
    n = wins + ties + losses
    return _improvement((wins + 0.5 * ties) / n, n, True, level) if n else None


def unpaired_improvement(arm: Scores, baseline: Scores, level: float = 0.95) -> Improvement | None:
    """Return the share of all meetings of two runs that are won: Mann and Whitney's U over its largest value.

    Args:
        arm: one score a run; None for a run without a result, which loses to every run with one.
        baseline: one score a run, likewise.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The improvement; None where a side has no run.
    """
    if not len(arm) or not len(baseline):
        return None
    results = np.concatenate([without_missing(arm), without_missing(baseline)])
    below = float(np.nextafter(np.min(results), -np.inf)) if len(results) else 0.0
    left, right = (_with_nulls(scores, below) for scores in (arm, baseline))
    won = float(stats.mannwhitneyu(left, right).statistic) / (len(left) * len(right))
    return _improvement(won, min(len(left), len(right)), False, level)


def _with_nulls(scores: Sequence[float | None], below: float) -> list[float]:
    return [below if score is None else score for score in scores]


def _improvement(probability: float, n: int, paired: bool, level: float) -> Improvement:
    # Wilson's interval, which is no point where every pair is won, as the bootstrap's is. A tie only lowers the
    # variance of a share. That of U / (n m) is at most p (1 - p) / min(n, m) (Birnbaum and Klose 1957), so the smaller
    # side's number of runs makes the interval wide enough.
    low, high = proportion_confint(probability * n, n, alpha=1 - level, method="wilson")
    return Improvement(probability, Interval(float(low), float(high)), n, paired)
