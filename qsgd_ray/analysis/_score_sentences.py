"""The reason of a verdict on scores: its numbers in the unit of the scores in, one or two sentences out.

The branches are those of `verdict.decide`, which has taken them already: nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qsgd_ray.analysis._pair_tests import MIN_PAIRS, complete_pairs_decide
from qsgd_ray.analysis._sentences import p_text
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.analysis.score_rule import ScoreRule
from qsgd_ray.analysis.verdict import ArmVerdict, Verdict

_MOST_SEEDS = 5


def reason(v: ArmVerdict, p: Pairs, rule: ScoreRule, absent: Mapping[str, Sequence[object]]) -> str:
    """Return why a verdict is what it is.

    Args:
        v: the verdict, in the unit of the scores.
        p: its pairs, of which the counts matter here.
        rule: of the verdict.
        absent: by arm the seeds that it has no row of.
    """
    ended = v.n_pairs + v.n_lost
    if v.n_pending:
        return _of_pending(v, rule, absent)
    if ended < MIN_PAIRS:
        return f"There are {ended} of the {MIN_PAIRS} pairs of runs that a verdict needs at least."
    return _with_losses(v, p, rule) if v.n_lost else _of_complete(v, rule)


def _of_pending(v: ArmVerdict, rule: ScoreRule, absent: Mapping[str, Sequence[object]]) -> str:
    ended = v.n_pairs + v.n_lost
    words = [f"Only {ended} of {ended + v.n_pending} pairs of runs have ended, and nothing is decided before all have"]
    if rule.missing == "pending":
        for arm, seeds in absent.items():
            if seeds:
                shown = ", ".join(map(str, seeds[:_MOST_SEEDS]))
                more = f" and {len(seeds) - _MOST_SEEDS} more" if len(seeds) > _MOST_SEEDS else ""
                words.append(f"{arm} has no row at seed {shown}{more}")
    return f"{'; '.join(words)}."


def _with_losses(v: ArmVerdict, p: Pairs, rule: ScoreRule) -> str:
    nothing = [
        name
        for name, n_lost in ((v.arm, p.arm_lost + p.both_lost), (v.baseline, p.baseline_lost + p.both_lost))
        if n_lost == p.n + p.n_lost
    ]
    opening = f"No run of {' and none of '.join(nothing)} got a result. " if nothing else ""
    complete = complete_pairs_decide(p, rule.scaled)
    wins, ties, losses = p.signs(0.0 if complete else rule.scaled.margin)
    score = (
        f"{v.n_lost} of {v.n_pairs + v.n_lost} pairs have a run without a result "
        f"({p.arm_lost + p.both_lost} of {v.arm}, {p.baseline_lost + p.both_lost} of {v.baseline}); "
        f"counted as losses, {v.arm} wins {wins}, ties {ties} and loses {losses}"
    )
    if complete and v.difference is not None:
        unit = f" {rule.numbers.unit_of_differences}".rstrip()
        score += f", and over the complete pairs its difference is {rule.numbers.difference(v.difference)}{unit}"
    if v.verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"{opening}{score}, which is beyond chance ({p_text(v.p_difference)})."
    return opening.strip() or f"{score}, which chance explains as well ({p_text(v.p_difference)})."


def _of_complete(v: ArmVerdict, rule: ScoreRule) -> str:
    assert v.difference is not None
    assert v.smallest_detectable_effect is not None
    assert v.p_difference is not None
    assert v.p_equivalence is not None
    numbers, alpha = rule.numbers, rule.decision.alpha
    unit = f" {numbers.unit_of_differences}".rstrip()
    difference, margin = f"{numbers.difference(v.difference)}{unit}", numbers.size(v.margin)
    detectable = numbers.size(v.smallest_detectable_effect)
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
        word = "higher" if v.difference > 0 else "lower"
        sense = "higher is better" if rule.direction == "max" else "lower is better"
        caution = (
            f"; its size is probably overstated, as these seeds reliably show only {detectable} or more"
            if abs(v.difference) < v.smallest_detectable_effect
            else ""
        )
        return (
            f"Over {v.n_pairs} pairs the {rule.score} of {v.arm} is {numbers.size(v.difference)} {word} than that of "
            f"{v.baseline} ({sense}), beyond chance ({p_different}) and at least the margin of {margin}{caution}."
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
