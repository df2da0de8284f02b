"""The verdict on every arm: the confirmation's rows in, one `ArmVerdict` an arm out.

Accuracies, differences and margins are fractions of one, times are seconds. The rule (protocol 4 to 8, 11 and 12):

- Arms are paired by seed. A run without a test accuracy (diverged, failed, lost) keeps its row: its pair is lost, not
  left out. A pair is pending until both rows are there; a `lost` row is tried again, so it leaves its pair pending.
- The seeds are the stopping rule. While a pair is pending, or with fewer than `MIN_PAIRS` pairs, nothing is decided.
- Without lost pairs: better or worse needs a significant two-sided paired t test and a mean difference of at least the
  margin. Equivalent needs two significant one-sided tests within the margin, and goes first: a real difference
  below the margin is equivalent. A significant difference below the margin that is not shown to stay there is
  inconclusive.
- With lost pairs a sign test decides: a run without a result loses to one with a result, two such tie, and so do
  results closer than the margin. Ten pairs with one loss are significant to it, but no longer after the correction for
  three arms; so a difference that the t test shows over the complete pairs, with the correction and as above, also
  counts where the sign test agrees without it, every difference counted. Equivalent is out of reach with lost pairs.
- p values carry Holm's correction over all arms of the study, tested or not: the family is fixed by the study file.
- What the seeds could not have supported (protocol 11): equivalent also asks that the smallest detectable effect is at
  most the margin; else "no difference" would only mean that none could be seen. Better and worse rest on their
  test alone: asking that the estimate reach the smallest detectable effect would halve the power which
  that effect promises. Where the estimate is below it, the reason says that its size is probably overstated.
- The smallest detectable effect is stated at alpha / number of arms, Holm's first and strictest step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis.improvement import Improvement, paired_improvement, unpaired_improvement
from qsgd_ray.analysis.statistics import Floats, Interval
from qsgd_ray.analysis.summary import METRIC, ArmSummary, Row, arm_summaries, confirm_rows, result
from qsgd_ray.config import Decision
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables

# Protocol 5: five seeds explore. Below that a t interval is wider than any margin worth the name.
MIN_PAIRS = 5

__all__ = ["MIN_PAIRS", "ArmSummary", "ArmVerdict", "Pairs", "Verdict", "arm_summaries", "decide", "judge", "pair"]


class Verdict(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Pairs:
    """An arm's runs against the baseline's. `differences`: arm - baseline, of the pairs in which both have a result."""

    differences: Floats
    arm_lost: int = 0
    baseline_lost: int = 0
    both_lost: int = 0
    pending: int = 0

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def n_lost(self) -> int:
        return self.arm_lost + self.baseline_lost + self.both_lost

    def signs(self, margin: float) -> tuple[int, int, int]:
        """Wins, ties, losses; differences below `margin` tie, a run without a result loses to one with a result."""
        wins = int(np.sum((self.differences >= margin) & (self.differences > 0))) + self.baseline_lost
        losses = int(np.sum((self.differences <= -margin) & (self.differences < 0))) + self.arm_lost
        return wins, self.n + self.n_lost - wins - losses, losses


@dataclass(frozen=True)
class ArmVerdict:
    """None is "cannot be computed". `interval`: 95 % at alpha 0.05; `equivalence_interval`: the 90 % of the two
    one-sided tests. With lost pairs both, and `difference`, speak of the complete pairs only. p values are corrected.
    `improvement` is by pairs, lost ones included; where no pair has ended, by all runs that have.
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


def pair(arm: Sequence[Row], baseline: Sequence[Row], seeds: Sequence[int], metric: str = METRIC) -> Pairs:
    """The rows of two arms, paired by seed; `metric` is the column that is compared."""
    left, right = ({row["seed"]: row for row in rows} for rows in (arm, baseline))
    differences: list[tuple[float, float]] = []
    counts: Counter[str] = Counter()
    for seed in seeds:
        rows = (left.get(seed), right.get(seed))
        ended = [row for row in rows if row is not None and row["ending"] != Ending.LOST]
        if len(ended) < 2:
            counts["pending"] += 1
            continue
        a, b = result(ended[0], metric), result(ended[1], metric)
        if a is not None and b is not None:
            differences.append((a, b))
        else:
            counts["both_lost" if a is None and b is None else "arm_lost" if a is None else "baseline_lost"] += 1
    values = np.array(differences, dtype=np.float64).reshape(-1, 2)
    return Pairs(statistics.paired_differences(values[:, 0], values[:, 1]), **counts)


def judge(tables: StudyTables) -> tuple[ArmVerdict, ...]:
    """A verdict for every arm but the baseline, in the study's order, from the confirmation's rows alone."""
    study = tables.study
    baseline = confirm_rows(tables, study.baseline)
    pairs = {
        arm.name: pair(confirm_rows(tables, arm.name), baseline, study.confirm.seeds)
        for arm in study.arms
        if arm.name != study.baseline
    }
    verdicts = []
    for verdict in decide(pairs, study.decision, study.baseline):
        if verdict.improvement is None:
            arm = confirm_rows(tables, verdict.arm)
            verdict = replace(verdict, improvement=unpaired_improvement(_ended(arm), _ended(baseline)))
        verdicts.append(_explained(verdict, tables))
    return tuple(verdicts)


def _ended(rows: Sequence[Row]) -> list[float | None]:
    return [result(row) for row in rows if row["ending"] != Ending.LOST]


def _explained(verdict: ArmVerdict, tables: StudyTables) -> ArmVerdict:
    """Where an arm's whole search left nothing to confirm, waiting for its confirmation would be in vain: say so."""
    for name in (verdict.baseline, verdict.arm):
        ended = [row for row in tables.rows("search", name) if row["ending"] != Ending.LOST]
        usable = [row for row in ended if row["ending"] in (Ending.COMPLETED, Ending.STOPPED_EARLY)]
        planned = tables.study.planned("search", tables.study.arm(name))
        if planned and len(ended) >= planned and not usable and not tables.rows("confirm", name):
            reason = f"None of the {planned} search trials of {name} got a result, so there was nothing to confirm."
            return replace(verdict, reason=reason)
    return verdict


def decide(pairs: Mapping[str, Pairs], rule: Decision, baseline: str) -> tuple[ArmVerdict, ...]:
    """The rule itself: every arm's pairs in, every arm's verdict out."""
    p_difference = _corrected([_p_difference(p, rule) for p in pairs.values()])
    p_equivalence = _corrected([_p_equivalence(p, rule) for p in pairs.values()])
    verdicts = []
    for (arm, p), p_different, p_equivalent in zip(pairs.items(), p_difference, p_equivalence, strict=True):
        draft = ArmVerdict(
            arm=arm,
            baseline=baseline,
            verdict=Verdict.INCONCLUSIVE,
            reason="",
            margin=rule.margin,
            n_pairs=p.n,
            n_lost=p.n_lost,
            n_pending=p.pending,
            difference=_mean(p.differences) if p.n else None,
            interval=statistics.difference_interval(p.differences, 1 - rule.alpha),
            equivalence_interval=statistics.difference_interval(p.differences, 1 - 2 * rule.alpha),
            p_difference=p_different,
            p_equivalence=p_equivalent,
            improvement=paired_improvement(*p.signs(0.0)),
            smallest_detectable_effect=statistics.smallest_detectable_effect(
                p.differences, rule.alpha / len(pairs), rule.power
            ),
        )
        verdict, reason = _decided(draft, p, rule)
        verdicts.append(replace(draft, verdict=verdict, reason=reason))
    return tuple(verdicts)


def _p_difference(p: Pairs, rule: Decision) -> float | None:
    if p.n_lost and not _by_complete_pairs(p, rule):
        return _p_signs(p, rule.margin)
    return statistics.p_different(p.differences) if p.n >= 2 else None


def _by_complete_pairs(p: Pairs, rule: Decision) -> bool:
    """Of lost pairs: do the complete ones show more than the signs, and a sign test over all pairs agrees with them?"""
    if p.n < MIN_PAIRS or abs(_mean(p.differences)) < rule.margin:
        return False
    wins, _, losses = p.signs(0.0)
    agreed = _p_signs(p, 0.0) < rule.alpha and (wins > losses) == (_mean(p.differences) > 0)
    return agreed and statistics.p_different(p.differences) < _p_signs(p, rule.margin)


def _p_signs(p: Pairs, margin: float) -> float:
    wins, _, losses = p.signs(margin)
    return statistics.p_sign(wins, losses)


def _mean(differences: Floats) -> float:
    """Rounded like the differences: ten times the margin has the margin as its mean."""
    return round(float(np.mean(differences)), statistics.DECIMALS)


def _p_equivalence(p: Pairs, rule: Decision) -> float | None:
    return None if p.n_lost or p.n < 2 else statistics.p_equivalent(p.differences, rule.margin)


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm over all arms; one without a test counts as p = 1 and stays None."""
    corrected = statistics.holm([1.0 if p is None else p for p in p_values])
    return [None if p is None else q for p, q in zip(p_values, corrected, strict=True)]


def _decided(v: ArmVerdict, p: Pairs, rule: Decision) -> tuple[Verdict, str]:
    ended = v.n_pairs + v.n_lost
    if v.n_pending:
        return Verdict.INCONCLUSIVE, (
            f"Only {ended} of {ended + v.n_pending} planned pairs of runs have ended; the study decides when all have."
        )
    if ended < MIN_PAIRS:
        return Verdict.INCONCLUSIVE, (
            f"The study has {ended} of the {MIN_PAIRS} pairs of runs that a verdict needs at least."
        )
    return _with_losses(v, p, rule) if v.n_lost else _complete(v, rule.alpha)


def _with_losses(v: ArmVerdict, p: Pairs, rule: Decision) -> tuple[Verdict, str]:
    complete = _by_complete_pairs(p, rule)
    wins, ties, losses = p.signs(0.0 if complete else v.margin)
    score = (
        f"{v.n_lost} of {v.n_pairs + v.n_lost} pairs have a run without a result "
        f"({p.arm_lost + p.both_lost} of {v.arm}, {p.baseline_lost + p.both_lost} of {v.baseline}); "
        f"counted as losses, {v.arm} wins {wins}, ties {ties} and loses {losses}"
    )
    if complete and v.difference is not None:
        score += f", and over the complete pairs its difference is {signed(v.difference)} points"
    if v.p_difference is not None and v.p_difference < rule.alpha:
        verdict = Verdict.BETTER if wins > losses else Verdict.WORSE
        return verdict, f"{score}, which is beyond chance ({_p(v.p_difference)})."
    return Verdict.INCONCLUSIVE, f"{score}, which chance explains as well ({_p(v.p_difference)})."


def _complete(v: ArmVerdict, alpha: float) -> tuple[Verdict, str]:
    assert v.difference is not None
    assert v.smallest_detectable_effect is not None
    assert v.p_difference is not None
    assert v.p_equivalence is not None
    margin, detectable = _points(v.margin), _points(v.smallest_detectable_effect)
    different, equivalent = v.p_difference < alpha, v.p_equivalence < alpha
    supported = v.smallest_detectable_effect <= v.margin
    if equivalent and supported and different:
        return Verdict.EQUIVALENT, (
            f"The difference of {signed(v.difference)} points is real ({_p(v.p_difference)}) but smaller than the "
            f"margin of {margin} points ({_p(v.p_equivalence)})."
        )
    if equivalent and supported:
        shown = f"these seeds would have shown one of {detectable} points"
        return Verdict.EQUIVALENT, (
            f"Over {v.n_pairs} pairs the difference stays within the margin of {margin} points "
            f"({_p(v.p_equivalence)}), and {shown if v.smallest_detectable_effect else 'every pair shows the same'}."
        )
    if equivalent:
        return Verdict.INCONCLUSIVE, (
            f"The differences lie within the margin of {margin} points, but these seeds reliably show only differences "
            f"of {detectable} points or more, so equivalence is not supported."
        )
    if different and abs(v.difference) < v.margin:
        return Verdict.INCONCLUSIVE, (
            f"A difference of {signed(v.difference)} points is beyond chance ({_p(v.p_difference)}), but these seeds "
            f"cannot tell whether it exceeds the margin of {margin} points."
        )
    if different:
        word = "more" if v.difference > 0 else "less"
        caution = (
            f"; its size is probably overstated, as these seeds reliably show only {detectable} points or more"
            if abs(v.difference) < v.smallest_detectable_effect
            else ""
        )
        return Verdict.BETTER if v.difference > 0 else Verdict.WORSE, (
            f"Over {v.n_pairs} pairs {v.arm} is {_points(abs(v.difference))} points {word} accurate than {v.baseline}, "
            f"beyond chance ({_p(v.p_difference)}) and at least the margin of {margin} points{caution}."
        )
    return Verdict.INCONCLUSIVE, (
        f"Neither a difference ({_p(v.p_difference)}) nor equivalence within {margin} points "
        f"({_p(v.p_equivalence)}) is shown; these seeds reliably show only {detectable} points or more."
    )


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def signed(fraction: float) -> str:
    """In percentage points."""
    return f"{100 * fraction:+.2f}".replace("-", "−")


def _p(value: float | None) -> str:
    return "no p" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
