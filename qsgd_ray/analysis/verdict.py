"""The verdict on every arm: the confirmation's rows in, one `ArmVerdict` an arm out.

Values, differences and margins are in the unit of the decision's metric, fractions of one for a share such as accuracy.
Of a metric whose direction is `min` a difference below zero is a gain. The rule (protocol 4 to 8, 11 and 12):

- Arms are paired by seed. A run without a test value (diverged, failed, lost) keeps its row: its pair is lost, not
  left out. A pair is pending until both rows are there; a `lost` row is tried again, so it leaves its pair pending.
- The seeds are the stopping rule. While a pair is pending, or with fewer than `MIN_PAIRS` pairs, nothing is decided.
  Where the study's budget is spent, that rule ended it, which looks at no result: the pairs that are there are judged,
  and the reason says how many are missing.
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

from qsgd_ray.analysis import significance, statistics
from qsgd_ray.analysis._arm_verdict import ArmVerdict as ArmVerdict
from qsgd_ray.analysis._arm_verdict import Verdict as Verdict
from qsgd_ray.analysis._pair_tests import MIN_PAIRS as MIN_PAIRS
from qsgd_ray.analysis._pair_tests import complete_pairs_decide, corrected, mean_of, p_difference, p_equivalence
from qsgd_ray.analysis._rows import Row, confirm_rows, final_value, has_ended
from qsgd_ray.analysis._verdict_sentences import metric_formats, reason_of_complete, reason_with_losses
from qsgd_ray.analysis.budget import _is_spent
from qsgd_ray.analysis.improvement import paired_improvement, unpaired_improvement
from qsgd_ray.analysis.pairs import Pairs, pair_by_seed
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.config import ACCURACY, Decision, Metric
from qsgd_ray.outcome import Ending, environment_error
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class _Question:
    """Arms against one baseline, by one metric.

    Attributes:
        pairs: each arm's pairs by its name.
        rule: margin (in the metric's unit), alpha and power.
        metric: of the differences, with its direction.
    """

    pairs: Mapping[str, Pairs]
    rule: Decision
    metric: Metric = ACCURACY


def judge(tables: StudyTables) -> tuple[ArmVerdict, ...]:
    """Return a verdict for every arm but the baseline, in the study's order, from the confirmation's rows alone."""
    return judge_together([tables])[0]


def judge_together(studies: Sequence[StudyTables]) -> list[tuple[ArmVerdict, ...]]:
    """Return the verdicts of several studies, with p values that are corrected over all arms of all of them.

    Args:
        studies: with the same baseline, alpha and power; each has its own metric and margin.
    """
    pairs = [_pairs_of(tables) for tables in studies]
    questions = [
        _Question(_judged(of_study, tables), tables.study.decision, tables.study.metric)
        for of_study, tables in zip(pairs, studies, strict=True)
    ]
    baseline = studies[0].study.baseline
    return [
        tuple(_completed(verdict, tables, of_study) for verdict in verdicts)
        for of_study, tables, verdicts in zip(pairs, studies, _decide_together(questions, baseline), strict=True)
    ]


def _pairs_of(tables: StudyTables) -> dict[str, Pairs]:
    study = tables.study
    baseline = confirm_rows(tables, study.baseline)
    return {
        arm.name: pair_by_seed(confirm_rows(tables, arm.name), baseline, study.confirm.seeds, study.metric)
        for arm in study.arms
        if arm.name != study.baseline
    }


def _judged(pairs: Mapping[str, Pairs], tables: StudyTables) -> Mapping[str, Pairs]:
    """Return the pairs that are judged: a stop by budget looks at no result, so those that are there are a sample."""
    if not _is_spent(tables):
        return pairs
    return {name: replace(of_arm, pending=0) for name, of_arm in pairs.items()}


def _completed(verdict: ArmVerdict, tables: StudyTables, pairs: Mapping[str, Pairs]) -> ArmVerdict:
    """Return a verdict with what the runs beside the pairs show, and with what a spent budget has left out."""
    if n_pending := pairs[verdict.arm].pending - verdict.n_pending:
        verdict = _with_missing(verdict, n_pending)
    if verdict.improvement is None:
        arm, baseline = (
            _scores(confirm_rows(tables, name), tables.study.metric) for name in (verdict.arm, verdict.baseline)
        )
        verdict = replace(verdict, improvement=unpaired_improvement(arm, baseline))
    return _with_search_failure(verdict, tables)


def _with_missing(verdict: ArmVerdict, n_pending: int) -> ArmVerdict:
    """Say of a verdict on the pairs that a spent budget left that planned ones are missing."""
    planned = verdict.n_pairs + verdict.n_lost + n_pending
    missing = f"Planned runs missing: the budget ended the study before {n_pending} of {planned} pairs."
    return replace(verdict, n_pending=n_pending, reason=f"{verdict.reason} {missing}")


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
        >>> import numpy as np
        >>> gain = Pairs(np.array([0.031, 0.029, 0.030, 0.032, 0.028, 0.030]))
        >>> [verdict] = decide({"sine": gain}, Decision(margin=0.01), "adamw")
        >>> verdict.verdict, round(verdict.difference, 3)
        (<Verdict.BETTER: 'better'>, 0.03)
    """
    return _decide_together([_Question(pairs, rule, metric)], baseline)[0]


def _decide_together(questions: Sequence[_Question], baseline: str) -> list[tuple[ArmVerdict, ...]]:
    """Return the verdicts on the arms of several questions, with p values corrected over all arms of all of them.

    Args:
        questions: the arms' pairs by question.
        baseline: the name of the arm that all are compared with.
    """
    # Tests, intervals and signs are those of gains; a mirrored metric then has the mirrored verdict to the bit.
    gains = [[p.gains(question.metric) for p in question.pairs.values()] for question in questions]
    tested = [(p, question.rule) for question, all_p in zip(questions, gains, strict=True) for p in all_p]
    p_values = zip(
        corrected([p_difference(p, rule) for p, rule in tested]),
        corrected([p_equivalence(p, rule) for p, rule in tested]),
        strict=True,
    )
    return [
        tuple(
            _decided(arm, baseline, p, question, len(tested), next(p_values))
            for arm, p in zip(question.pairs, all_p, strict=True)
        )
        for question, all_p in zip(questions, gains, strict=True)
    ]


def _decided(
    arm: str, baseline: str, p: Pairs, question: _Question, n_tests: int, p_values: tuple[float | None, float | None]
) -> ArmVerdict:
    """Return the verdict on an arm by its gains and by its p values, which are corrected for so many tests."""
    rule, metric = question.rule, question.metric
    draft = ArmVerdict(
        arm=arm,
        baseline=baseline,
        verdict=Verdict.INCONCLUSIVE,
        reason="",
        margin=rule.margin,
        n_pairs=p.n,
        n_lost=p.n_lost,
        n_pending=p.pending,
        difference=metric.sign * mean_of(p) + 0.0 if p.n else None,
        interval=_interval(p, 1 - rule.alpha, metric),
        equivalence_interval=_interval(p, 1 - 2 * rule.alpha, metric),
        p_difference=p_values[0],
        p_equivalence=p_values[1],
        improvement=paired_improvement(*p.signs(0.0)),
        smallest_detectable_effect=significance.smallest_detectable_effect(
            p.differences, rule.alpha / n_tests, rule.power
        ),
        metric=metric,
    )
    decided = replace(draft, verdict=_verdict(draft, p, rule))
    return replace(decided, reason=_reason(decided, p, rule))


def _interval(p: Pairs, level: float, metric: Metric) -> Interval | None:
    """Return Student's interval of the differences of which these are the gains."""
    interval = statistics.difference_interval(p.differences, level)
    return interval and interval.times(metric.sign)


def _verdict(v: ArmVerdict, p: Pairs, rule: Decision) -> Verdict:
    """Return the verdict on the numbers of a draft."""
    if v.n_pending or v.n_pairs + v.n_lost < MIN_PAIRS:
        return Verdict.INCONCLUSIVE
    different = v.p_difference is not None and v.p_difference < rule.alpha
    if v.n_lost:
        wins, _, losses = p.signs(0.0 if complete_pairs_decide(p, rule) else v.margin)
        return Verdict.INCONCLUSIVE if not different else Verdict.BETTER if wins > losses else Verdict.WORSE
    assert v.difference is not None
    assert v.smallest_detectable_effect is not None
    assert v.p_equivalence is not None
    if v.p_equivalence < rule.alpha:
        supported = v.smallest_detectable_effect <= v.margin
        return Verdict.EQUIVALENT if supported else Verdict.INCONCLUSIVE
    if not different or abs(v.difference) < v.margin:
        return Verdict.INCONCLUSIVE
    return Verdict.BETTER if v.metric.sign * v.difference > 0 else Verdict.WORSE


def _reason(v: ArmVerdict, p: Pairs, rule: Decision) -> str:
    """Return one or two sentences on why a verdict is what it is."""
    ended = v.n_pairs + v.n_lost
    if v.n_pending:
        return (
            f"Only {ended} of {ended + v.n_pending} planned pairs of runs have ended; the study decides when all have."
        )
    if ended < MIN_PAIRS:
        return f"The study has {ended} of the {MIN_PAIRS} pairs of runs that a verdict needs at least."
    formats = metric_formats(v.metric)
    return reason_with_losses(v, p, rule, formats) if v.n_lost else reason_of_complete(v, rule.alpha, formats)
