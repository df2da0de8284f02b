"""The verdict on every arm: the confirmation's rows in, one `ArmVerdict` an arm out.

Values, differences and margins are in the unit of the decision's metric, fractions of one for a share such as accuracy.
Of a metric whose direction is `min` a difference below zero is a gain. The rule (protocol 4 to 8, 11 and 12):

- Arms are paired by seed. A run without a test value (diverged, failed, lost) keeps its row: its pair is lost, not
  left out. A pair is pending until both rows are there; a `lost` row is tried again, so it leaves its pair pending.
- The seeds are the stopping rule. While a pair is pending, or with fewer than `MIN_PAIRS` pairs, nothing is decided.
- Without lost pairs: better or worse needs a significant two-sided paired t test and a mean difference of at least the
  margin. Equivalent needs two significant one-sided tests within the margin, and goes first: a real difference
  below the margin is equivalent. A significant difference below the margin that is not shown to stay there is
  inconclusive.
- With lost pairs a sign test decides: a run without a result loses to one with a result, two such runs tie, and so do
  results closer than the margin. Ten pairs with one loss are significant to it, but no longer after the correction for
  three arms; so a difference that the t test shows over the complete pairs, with the correction and as above, also
  counts where the sign test agrees without it, every difference counted. Equivalent is out of reach with lost pairs.
- p values carry Holm's correction over all arms of the study, tested or not: the family is fixed by the study file.
- The seeds must be able to support what is said (protocol 11): equivalent also needs a smallest detectable effect of
  at most the margin; else "no difference" would only mean that none could be seen. Better and worse rest on their
  test alone: a demand that the estimate reach the smallest detectable effect would halve the power which that effect
  promises. Where the estimate is below it, the reason says that its size is probably overstated.
- The smallest detectable effect is stated at alpha / number of arms, Holm's first and strictest step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from qsgd_ray.analysis import significance, statistics
from qsgd_ray.analysis._rows import Row, confirm_rows, final_value, has_ended
from qsgd_ray.analysis._sentences import p_text
from qsgd_ray.analysis.improvement import Improvement, paired_improvement, unpaired_improvement
from qsgd_ray.analysis.metric import amount_text
from qsgd_ray.analysis.pairs import Pairs, pair_by_seed
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.config import ACCURACY, Decision, Metric
from qsgd_ray.outcome import Ending, environment_error
from qsgd_ray.results import StudyTables

# Protocol 5: five seeds explore. Below that a t interval is wider than any margin worth the name.
MIN_PAIRS = 5


class Verdict(StrEnum):
    """The outcome of an arm against the baseline."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class ArmVerdict:
    """The verdict on one arm, with the numbers that it rests on; None where a number cannot be computed.

    Attributes:
        arm: its name.
        baseline: the name of the arm that it is compared with.
        verdict: the outcome.
        reason: one or two sentences on why.
        margin: the smallest difference that matters, > 0 in the metric's unit.
        n_pairs: complete pairs of runs.
        n_lost: pairs that ended with a run without a result.
        n_pending: pairs of which a run has yet to end.
        difference: mean of arm - baseline over the complete pairs, in the metric's unit.
        interval: Student's interval of the difference at 1 - alpha (95 % by default), over the complete pairs.
        equivalence_interval: the same at 1 - 2 alpha (90 %), that of the two one-sided tests.
        p_difference: of the test that decides better and worse, corrected for the number of arms.
        p_equivalence: of the test of equivalence, corrected; None where pairs are lost.
        improvement: probability that the arm beats the baseline, over pairs, lost ones included; where no pair has
            ended, over all runs that have.
        smallest_detectable_effect: the mean difference that these seeds show with the study's power.
        metric: of the decision.
    """

    arm: str
    baseline: str
    verdict: Verdict
    reason: str
    margin: float
    n_pairs: int
    n_lost: int
    n_pending: int
    difference: float | None
    interval: Interval | None
    equivalence_interval: Interval | None
    p_difference: float | None
    p_equivalence: float | None
    improvement: Improvement | None
    smallest_detectable_effect: float | None
    metric: Metric = ACCURACY


def judge(tables: StudyTables) -> tuple[ArmVerdict, ...]:
    """Return a verdict for every arm but the baseline, in the study's order, from the confirmation's rows alone."""
    study = tables.study
    baseline = confirm_rows(tables, study.baseline)
    pairs = {
        arm.name: pair_by_seed(confirm_rows(tables, arm.name), baseline, study.confirm.seeds, study.metric)
        for arm in study.arms
        if arm.name != study.baseline
    }
    verdicts = []
    for verdict in decide(pairs, study.decision, study.baseline, study.metric):
        if verdict.improvement is None:
            arm = confirm_rows(tables, verdict.arm)
            improvement = unpaired_improvement(_scores(arm, study.metric), _scores(baseline, study.metric))
            verdict = replace(verdict, improvement=improvement)
        verdicts.append(_with_search_failure(verdict, tables))
    return tuple(verdicts)


def _scores(rows: Sequence[Row], metric: Metric) -> list[float | None]:
    """Return the results of runs that have ended, the larger the better."""
    results = [final_value(row, metric) for row in rows if has_ended(row)]
    return [None if result is None else metric.sign * result for result in results]


def _with_search_failure(verdict: ArmVerdict, tables: StudyTables) -> ArmVerdict:
    """Give the failed search as the reason where an arm's whole search left nothing to confirm."""
    for name in (verdict.baseline, verdict.arm):
        rows = tables.rows("search", name)
        ended = [row for row in rows if has_ended(row)]
        if rows and not ended and (error := environment_error(rows[-1]["error"])) and not tables.rows("confirm", name):
            return replace(verdict, reason=f"The search of {name} lacked something where it ran: {error}.")
        usable = [row for row in ended if row["ending"] in (Ending.COMPLETED, Ending.STOPPED_EARLY)]
        planned = tables.study.planned("search", tables.study.arm(name))
        if planned and len(ended) >= planned and not usable and not tables.rows("confirm", name):
            reason = f"None of the {planned} search trials of {name} got a result, so there was nothing to confirm."
            return replace(verdict, reason=reason)
    return verdict


def decide(
    pairs: Mapping[str, Pairs], rule: Decision, baseline: str, metric: Metric = ACCURACY
) -> tuple[ArmVerdict, ...]:
    """Return the verdict on every arm by the rule at the top of this file.

    Args:
        pairs: each arm's pairs by its name, n_arms of them; p values are corrected for as many.
        rule: margin (in the metric's unit), alpha and power of the study.
        baseline: the name of the arm that all are compared with.
        metric: of the differences, with its direction; default: accuracy.

    Example:
        >>> gain = Pairs(np.array([0.031, 0.029, 0.030, 0.032, 0.028, 0.030]))
        >>> [verdict] = decide({"sine": gain}, Decision(margin=0.01), "adamw")
        >>> verdict.verdict, round(verdict.difference, 3)
        (<Verdict.BETTER: 'better'>, 0.03)
    """
    # Tests, intervals and signs are those of gains; a mirrored metric then has the mirrored verdict to the bit.
    gains = {arm: p.gains(metric) for arm, p in pairs.items()}
    p_difference = _corrected([_p_difference(p, rule) for p in gains.values()])
    p_equivalence = _corrected([_p_equivalence(p, rule) for p in gains.values()])
    verdicts = []
    for (arm, p), p_different, p_equivalent in zip(gains.items(), p_difference, p_equivalence, strict=True):
        draft = ArmVerdict(
            arm=arm,
            baseline=baseline,
            verdict=Verdict.INCONCLUSIVE,
            reason="",
            margin=rule.margin,
            n_pairs=p.n,
            n_lost=p.n_lost,
            n_pending=p.pending,
            difference=metric.sign * _mean(p) + 0.0 if p.n else None,
            interval=_interval(p, 1 - rule.alpha, metric),
            equivalence_interval=_interval(p, 1 - 2 * rule.alpha, metric),
            p_difference=p_different,
            p_equivalence=p_equivalent,
            improvement=paired_improvement(*p.signs(0.0)),
            smallest_detectable_effect=significance.smallest_detectable_effect(
                p.differences, rule.alpha / len(pairs), rule.power
            ),
            metric=metric,
        )
        verdict, reason = _outcome(draft, p, rule)
        verdicts.append(replace(draft, verdict=verdict, reason=reason))
    return tuple(verdicts)


def _interval(p: Pairs, level: float, metric: Metric) -> Interval | None:
    """Return Student's interval of the differences of which these are the gains."""
    interval = statistics.difference_interval(p.differences, level)
    return interval and interval.times(metric.sign)


def _p_difference(p: Pairs, rule: Decision) -> float | None:
    if p.n_lost and not _complete_pairs_decide(p, rule):
        return _p_signs(p, rule.margin)
    return significance.paired_t_p_value(p.differences) if p.n >= 2 else None


def _complete_pairs_decide(p: Pairs, rule: Decision) -> bool:
    """Tell the rule for lost pairs: the t test of the complete pairs decides, not the signs of all.

    It does where it shows more than the signs, and where a sign test over all pairs agrees with it.
    """
    if p.n < MIN_PAIRS or abs(_mean(p)) < rule.margin:
        return False
    wins, _, losses = p.signs(0.0)
    agreed = _p_signs(p, 0.0) < rule.alpha and (wins > losses) == (_mean(p) > 0)
    return agreed and significance.paired_t_p_value(p.differences) < _p_signs(p, rule.margin)


def _p_signs(p: Pairs, margin: float) -> float:
    wins, _, losses = p.signs(margin)
    return significance.sign_test_p_value(wins, losses)


def _mean(p: Pairs) -> float:
    """Return the mean, rounded like the differences: ten times the margin has the margin as its mean."""
    return round(float(np.mean(p.differences)), p.decimals)


def _p_equivalence(p: Pairs, rule: Decision) -> float | None:
    return None if p.n_lost or p.n < 2 else significance.tost_p_value(p.differences, rule.margin)


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values with Holm's correction over all arms; an arm without a test counts as p = 1 and stays None."""
    corrected = significance.holm([1.0 if p is None else p for p in p_values])
    return [None if p is None else q for p, q in zip(p_values, corrected, strict=True)]


def _outcome(v: ArmVerdict, p: Pairs, rule: Decision) -> tuple[Verdict, str]:
    ended = v.n_pairs + v.n_lost
    if v.n_pending:
        return Verdict.INCONCLUSIVE, (
            f"Only {ended} of {ended + v.n_pending} planned pairs of runs have ended; the study decides when all have."
        )
    if ended < MIN_PAIRS:
        return Verdict.INCONCLUSIVE, (
            f"The study has {ended} of the {MIN_PAIRS} pairs of runs that a verdict needs at least."
        )
    return _outcome_with_losses(v, p, rule) if v.n_lost else _outcome_of_complete(v, rule.alpha)


def _outcome_with_losses(v: ArmVerdict, p: Pairs, rule: Decision) -> tuple[Verdict, str]:
    complete = _complete_pairs_decide(p, rule)
    nothing = _without_any_result(v, p)
    wins, ties, losses = p.signs(0.0 if complete else v.margin)
    score = (
        f"{v.n_lost} of {v.n_pairs + v.n_lost} pairs have a run without a result "
        f"({p.arm_lost + p.both_lost} of {v.arm}, {p.baseline_lost + p.both_lost} of {v.baseline}); "
        f"counted as losses, {v.arm} wins {wins}, ties {ties} and loses {losses}"
    )
    if complete and v.difference is not None:
        score += f", and over the complete pairs its difference is {amount_text(v.difference, v.metric, sign=True)}"
    if v.p_difference is not None and v.p_difference < rule.alpha:
        verdict = Verdict.BETTER if wins > losses else Verdict.WORSE
        return verdict, f"{nothing}{score}, which is beyond chance ({p_text(v.p_difference)})."
    if nothing:
        return Verdict.INCONCLUSIVE, nothing.strip()
    return Verdict.INCONCLUSIVE, f"{score}, which chance explains as well ({p_text(v.p_difference)})."


def _without_any_result(v: ArmVerdict, p: Pairs) -> str:
    """Return a sentence on the arms of which no run of a pair got a result; empty where each has one."""
    lost = ((v.arm, p.arm_lost + p.both_lost), (v.baseline, p.baseline_lost + p.both_lost))
    names = [name for name, n_lost in lost if n_lost == p.n + p.n_lost]
    return f"No run of {' and none of '.join(names)} got a result. " if names else ""


def _outcome_of_complete(v: ArmVerdict, alpha: float) -> tuple[Verdict, str]:
    assert v.difference is not None
    assert v.smallest_detectable_effect is not None
    assert v.p_difference is not None
    assert v.p_equivalence is not None
    difference = amount_text(v.difference, v.metric, sign=True)
    margin, detectable = (amount_text(value, v.metric) for value in (v.margin, v.smallest_detectable_effect))
    different, equivalent = v.p_difference < alpha, v.p_equivalence < alpha
    supported = v.smallest_detectable_effect <= v.margin
    if equivalent and supported and different:
        return Verdict.EQUIVALENT, (
            f"The difference of {difference} is real ({p_text(v.p_difference)}) but smaller than "
            f"the margin of {margin} ({p_text(v.p_equivalence)})."
        )
    if equivalent and supported:
        shown = f"these seeds would have shown one of {detectable}"
        return Verdict.EQUIVALENT, (
            f"Over {v.n_pairs} pairs the difference stays within the margin of {margin} "
            f"({p_text(v.p_equivalence)}), and "
            f"{shown if v.smallest_detectable_effect else 'every pair shows the same'}."
        )
    if equivalent:
        return Verdict.INCONCLUSIVE, (
            f"The differences lie within the margin of {margin}, but these seeds reliably show only differences "
            f"of {detectable} or more, so equivalence is not supported."
        )
    if different and abs(v.difference) < v.margin:
        return Verdict.INCONCLUSIVE, (
            f"A difference of {difference} is beyond chance ({p_text(v.p_difference)}), but these seeds "
            f" cannot tell whether it exceeds the margin of {margin}."
        )
    if different:
        caution = (
            f"; its size is probably overstated, as these seeds reliably show only {detectable} or more"
            if abs(v.difference) < v.smallest_detectable_effect
            else ""
        )
        return Verdict.BETTER if v.metric.sign * v.difference > 0 else Verdict.WORSE, (
            f"Over {v.n_pairs} pairs {_compared(v, v.difference)}, beyond chance "
            f"({p_text(v.p_difference)}) and at least the margin of {margin}{caution}."
        )
    return Verdict.INCONCLUSIVE, (
        f"Neither a difference ({p_text(v.p_difference)}) nor equivalence within {margin} "
        f"({p_text(v.p_equivalence)}) is shown; these seeds reliably show only {detectable} or more."
    )


def _compared(v: ArmVerdict, difference: float) -> str:
    """Return which arm has more of the metric, and by how much."""
    amount = amount_text(abs(difference), v.metric)
    if v.metric == ACCURACY.model_copy(update={"target": v.metric.target}):
        return f"{v.arm} is {amount} {'more' if difference > 0 else 'less'} accurate than {v.baseline}"
    word = "higher" if difference > 0 else "lower"
    return f"the {v.metric.name.replace('_', ' ')} of {v.arm} is {amount} {word} than that of {v.baseline}"
