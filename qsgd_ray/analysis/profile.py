"""A performance profile: the scores of an arm's runs in, the share of runs that reach each score out.

As rliable's (Agarwal et al. 2021, arXiv 2108.13264), of one task. A run without a result reaches no score and stays in
the denominator, so the profile of an arm that loses runs starts below one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.proportion import proportion_confint

from qsgd_ray.analysis.statistics import Floats, Scores, finite, known


@dataclass(frozen=True)
class Profile:
    """`share[k]` of `n` runs, of which `n_null` have no result, reach `thresholds[k]`; `low`, `high`: its band."""

    thresholds: Floats
    share: Floats
    low: Floats
    high: Floats
    n: int
    n_null: int


def performance_profile(scores: Scores, thresholds: ArrayLike, level: float = 0.95) -> Profile | None:
    """The profile at `thresholds`, with Wilson's interval at each; None without a run."""
    n, at, results = len(scores), finite(thresholds), np.sort(known(scores))
    if not n:
        return None
    reached = len(results) - np.searchsorted(results, at, side="left")
    # Pointwise, and open where the bootstrap's band of rliable would close: at a share of 0 or 1.
    low, high = proportion_confint(reached, n, alpha=1 - level, method="wilson")
    return Profile(at, reached / n, np.asarray(low), np.asarray(high), n, n - len(results))
