"""Tests of an arm's pairs by the rule of the verdict: pairs of gains and a decision in; p values out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qsgd_ray.analysis import significance
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.config import Decision

# Protocol 5: five seeds explore. Below that a t interval is wider than any margin worth the name.
MIN_PAIRS = 5


def p_difference(p: Pairs, rule: Decision) -> float | None:
    """Return the p value of the test that decides better and worse; None where it cannot be made."""
    if p.n_lost and not complete_pairs_decide(p, rule):
        return _p_signs(p, rule.margin)
    return significance.paired_t_p_value(p.differences) if p.n >= 2 else None


def complete_pairs_decide(p: Pairs, rule: Decision) -> bool:
    """Tell the rule for lost pairs: the t test of the complete pairs decides, not the signs of all.

    It does where it shows more than the signs, and where a sign test over all pairs agrees with it.
    """
    if p.n < MIN_PAIRS or abs(mean_of(p)) < rule.margin:
        return False
    wins, _, losses = p.signs(0.0)
    agreed = _p_signs(p, 0.0) < rule.alpha and (wins > losses) == (mean_of(p) > 0)
    return agreed and significance.paired_t_p_value(p.differences) < _p_signs(p, rule.margin)


def _p_signs(p: Pairs, margin: float) -> float:
    wins, _, losses = p.signs(margin)
    return significance.sign_test_p_value(wins, losses)


def mean_of(p: Pairs) -> float:
    """Return the mean, rounded like the differences: ten times the margin has the margin as its mean."""
    return round(float(np.mean(p.differences)), p.decimals)


def p_equivalence(p: Pairs, rule: Decision) -> float | None:
    """Return the p value of the test of equivalence; None where pairs are lost, or fewer than two complete."""
    return None if p.n_lost or p.n < 2 else significance.tost_p_value(p.differences, rule.margin)


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values with Holm's correction over all arms; an arm without a test counts as p = 1 and stays None."""
    by_holm = significance.holm([1.0 if p is None else p for p in p_values])
    return [None if p is None else q for p, q in zip(p_values, by_holm, strict=True)]
