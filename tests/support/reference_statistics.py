"""Naive twins of the statistics, for the tests: loops that a reader checks at a glance."""

import random
from statistics import fmean


def naive_interquartile_mean(values):
    """Sort, drop a quarter (rounded down) at each end, and average."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return fmean(ordered[cut : len(ordered) - cut])


def naive_bootstrap_interval(values, statistic, n_resamples, level=0.95):
    """Draw with replacement, sort the statistics, and cut the tails off."""
    rng = random.Random(0)
    resampled = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(n_resamples))
    tail = (1 - level) / 2
    return resampled[int(tail * n_resamples)], resampled[int((1 - tail) * n_resamples)]


def naive_win(left, right):
    """Return 1, one half or 0; None loses to a number and ties with None."""
    if left is None or right is None:
        return 0.5 if left is right else float(right is None)
    return 0.5 if left == right else float(left > right)


def naive_unpaired_improvement(arm, baseline):
    """Compare every run with every run."""
    return fmean(naive_win(left, right) for left in arm for right in baseline)


def naive_share(scores, threshold):
    """Return the share of all runs that reach the threshold; None reaches none."""
    return sum(score is not None and score >= threshold for score in scores) / len(scores)


def naive_holm(p_values):
    """Step down by hand: the smallest of what is left, times how many are left, never below the one before."""
    corrected, remaining, floor = [0.0] * len(p_values), list(range(len(p_values))), 0.0
    while remaining:
        k = min(remaining, key=lambda i: p_values[i])
        floor = max(floor, min(1.0, len(remaining) * p_values[k]))
        corrected[k] = floor
        remaining.remove(k)
    return tuple(corrected)
