"""The reason of a verdict on an arm or on scores: a verdict, its pairs and formats in; one or two sentences out.

Nothing is decided here: the branches are those that `verdict.decide` has taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qsgd_ray.analysis._arm_verdict import ArmVerdict, Verdict
from qsgd_ray.analysis._pair_tests import complete_pairs_decide
from qsgd_ray.analysis._sentences import p_text
from qsgd_ray.analysis.metric import amount_text
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.config import ACCURACY, Decision, Metric


@dataclass(frozen=True)
class Formats:
    """Formats of a verdict's numbers.

    Attributes:
        difference: of a difference, with sign and unit.
        size: of the size of a difference, with its unit.
        compared: says which arm has more of the metric, and by how much.
    """

    difference: Callable[[float], str]
    size: Callable[[float], str]
    compared: Callable[[ArmVerdict, str], str]


def metric_formats(metric: Metric) -> Formats:
    """Return the formats of a study's metric."""
    return Formats(
        difference=lambda value: amount_text(value, metric, sign=True),
        size=lambda value: amount_text(abs(value), metric),
        compared=_compared,
    )


def _compared(v: ArmVerdict, amount: str) -> str:
    assert v.difference is not None
    if v.metric == ACCURACY.model_copy(update={"target": v.metric.target}):
        return f"{v.arm} is {amount} {'more' if v.difference > 0 else 'less'} accurate than {v.baseline}"
    word = "higher" if v.difference > 0 else "lower"
    return f"the {v.metric.name.replace('_', ' ')} of {v.arm} is {amount} {word} than that of {v.baseline}"


def reason_with_losses(v: ArmVerdict, p: Pairs, rule: Decision, formats: Formats) -> str:
    """Return why a verdict is what it is where pairs have a run without a result.

    Args:
        v: the verdict.
        p: its pairs.
        rule: by which they were judged; its margin is in the unit of the pairs.
        formats: of the numbers of `v`.
    """
    complete = complete_pairs_decide(p, rule)
    nothing = _without_any_result(v, p)
    wins, ties, losses = p.signs(0.0 if complete else rule.margin)
    score = (
        f"{v.n_lost} of {v.n_pairs + v.n_lost} pairs have a run without a result "
        f"({p.arm_lost + p.both_lost} of {v.arm}, {p.baseline_lost + p.both_lost} of {v.baseline}); "
        f"counted as losses, {v.arm} wins {wins}, ties {ties} and loses {losses}"
    )
    if complete and v.difference is not None:
        score += f", and over the complete pairs its difference is {formats.difference(v.difference)}"
    if v.verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"{nothing}{score}, which is beyond chance ({p_text(v.p_difference)})."
    return nothing.strip() or f"{score}, which chance explains as well ({p_text(v.p_difference)})."


def _without_any_result(v: ArmVerdict, p: Pairs) -> str:
    """Return a sentence on the arms of which no run of a pair got a result; empty where each has one."""
    lost = ((v.arm, p.arm_lost + p.both_lost), (v.baseline, p.baseline_lost + p.both_lost))
    names = [name for name, n_lost in lost if n_lost == p.n + p.n_lost]
    return f"No run of {' and none of '.join(names)} got a result. " if names else ""


def reason_of_complete(v: ArmVerdict, alpha: float, formats: Formats) -> str:
    """Return why a verdict is what it is where every pair is complete.

    Args:
        v: the verdict.
        alpha: of the rule.
        formats: of the numbers of `v`.
    """
    assert v.difference is not None
    assert v.smallest_detectable_effect is not None
    assert v.p_difference is not None
    assert v.p_equivalence is not None
    difference = formats.difference(v.difference)
    margin, detectable = formats.size(v.margin), formats.size(v.smallest_detectable_effect)
    p_different, p_equivalent = p_text(v.p_difference), p_text(v.p_equivalence)
    different, equivalent = v.p_difference < alpha, v.p_equivalence < alpha
    if v.verdict == Verdict.EQUIVALENT and different:
        return (
            f"The difference of {difference} is real ({p_different}) but smaller than the margin of {margin} "
            f"({p_equivalent})."
        )
    if v.verdict == Verdict.EQUIVALENT:
        shown = f"these seeds would have shown one of {detectable}" if v.smallest_detectable_effect else ""
        return (
            f"Over {v.n_pairs} pairs the difference stays within the margin of {margin} ({p_equivalent}), and "
            f"{shown or 'every pair shows the same'}."
        )
    if v.verdict in (Verdict.BETTER, Verdict.WORSE):
        caution = (
            f"; its size is probably overstated, as these seeds reliably show only {detectable} or more"
            if abs(v.difference) < v.smallest_detectable_effect
            else ""
        )
        return (
            f"Over {v.n_pairs} pairs {formats.compared(v, formats.size(v.difference))}, beyond chance "
            f"({p_different}) and at least the margin of {margin}{caution}."
        )
    if equivalent:
        return (
            f"The differences lie within the margin of {margin}, but these seeds reliably show only differences of "
            f"{detectable} or more, so equivalence is not supported."
        )
    if different:
        return (
            f"A difference of {difference} is beyond chance ({p_different}), but these seeds cannot tell whether it "
            f"exceeds the margin of {margin}."
        )
    return (
        f"Neither a difference ({p_different}) nor equivalence within {margin} ({p_equivalent}) is shown; these seeds "
        f"reliably show only {detectable} or more."
    )
