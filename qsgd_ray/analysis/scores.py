"""Verdicts on scores of any origin: scores by arm and seed in, one frozen `ScoreAnalysis` out.

The rule is that of `verdict.decide`. Scores of which less is better are negated before it, and the signs of what comes
out are turned back. Scores that are no shares are scaled, with their margin, by a power of two: that changes no bit of
a number, and the rule rounds differences to a fixed number of decimals, which is right for numbers about one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._headline import headline
from qsgd_ray.analysis._score_sentences import reason
from qsgd_ray.analysis.improvement import unpaired_improvement
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.analysis.score_rule import ScoreRule
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.verdict import ArmVerdict, decide

# A whole number, or a name: a seed, a fold, a data set.
Seed = int | str
# Scores of an arm by seed; None is a run without a result.
ArmScores = Mapping[Seed, float | None]


@dataclass(frozen=True)
class Scores:
    """The scores that are judged.

    Attributes:
        by_arm: scores of every arm by seed.
        running: by arm the seeds whose run has not ended.
        source: where they come from, in words.
        notes: sentences on how they were read.
    """

    by_arm: Mapping[str, ArmScores]
    running: Mapping[str, frozenset[Seed]]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[Seed, ...]:
        """All seeds that an arm has, numbers first, each in order."""
        seeds = {seed for of_arm in (*self.by_arm.values(), *self.running.values()) for seed in of_arm}
        return tuple(sorted(seeds, key=lambda seed: (isinstance(seed, str), seed)))


@dataclass(frozen=True)
class ScoreSummary:
    """The scores of one arm in numbers.

    Attributes:
        arm: its name.
        n_runs: runs that have ended.
        n_null: of them, those without a result.
        iqm: interquartile mean of the others; None where there is none.
        iqm_interval: its 95 % bootstrap interval; None of fewer than two.
    """

    arm: str
    n_runs: int
    n_null: int
    iqm: float | None
    iqm_interval: Interval | None


@dataclass(frozen=True)
class ScoreAnalysis:
    """Everything that scores show.

    Attributes:
        scores: they themselves.
        rule: the rule of the verdicts.
        verdicts: one for each arm but the baseline, in the unit of the scores: differences are arm - baseline.
        summaries: one for each arm, the baseline first.
        differences: of every arm but the baseline, by seed, over the complete pairs.
    """

    scores: Scores
    rule: ScoreRule
    verdicts: tuple[ArmVerdict, ...]
    summaries: tuple[ScoreSummary, ...]
    differences: Mapping[str, Mapping[Seed, float]]

    @property
    def headline(self) -> str:
        """All verdicts in one sentence."""
        return headline(self.verdicts)

    @property
    def finished(self) -> bool:
        """True where no run is awaited."""
        return not any(verdict.n_pending for verdict in self.verdicts)


def analyse_scores(scores: Scores, rule: ScoreRule) -> ScoreAnalysis:
    """Return the verdicts on scores.

    Args:
        scores: of at least two arms, the baseline among them; no number larger than `score_rule.MOST_MARGINS` margins.
        rule: how they are judged.
    """
    arms = [rule.baseline, *(arm for arm in scores.by_arm if arm != rule.baseline)]
    paired = {arm: _pair(scores, rule, arm) for arm in arms[1:]}
    verdicts = []
    for verdict in decide({arm: pairs for arm, (pairs, _) in paired.items()}, rule.scaled, rule.baseline):
        pairs, absent = paired[verdict.arm][0], _absent(scores, rule, verdict.arm)
        restored = _restored(verdict, scores, rule)
        verdicts.append(replace(restored, reason=reason(restored, pairs, rule, absent)))
    return ScoreAnalysis(
        scores=scores,
        rule=rule,
        verdicts=tuple(verdicts),
        summaries=tuple(_summary(arm, scores.by_arm.get(arm, {})) for arm in arms),
        differences={arm: differences for arm, (_, differences) in paired.items()},
    )


def _pair(scores: Scores, rule: ScoreRule, arm: str) -> tuple[Pairs, dict[Seed, float]]:
    """Return an arm's pairs as the rule takes them, and its differences by seed as they are."""
    left, right = scores.by_arm.get(arm, {}), scores.by_arm.get(rule.baseline, {})
    running = {*scores.running.get(arm, ()), *scores.running.get(rule.baseline, ())}
    complete: dict[Seed, tuple[float, float]] = {}
    lost = {"arm_lost": 0, "baseline_lost": 0, "both_lost": 0}
    pending = 0
    for seed in scores.seeds:
        absent = [seed not in of_arm for of_arm in (left, right)]
        if seed in running or (any(absent) and rule.missing == "pending"):
            pending += 1
            continue
        if all(absent) or (any(absent) and rule.missing == "drop"):
            continue
        a, b = left.get(seed), right.get(seed)
        if a is not None and b is not None:
            complete[seed] = (a, b)
        else:
            lost["both_lost" if a is None and b is None else "arm_lost" if a is None else "baseline_lost"] += 1
    values = np.array([*complete.values()], dtype=np.float64).reshape(-1, 2)
    scaled = rule.factor * values
    pairs = Pairs(statistics.paired_differences(scaled[:, 0], scaled[:, 1]), **lost, pending=pending)
    return pairs, {seed: a - b for seed, (a, b) in complete.items()}


def _absent(scores: Scores, rule: ScoreRule, arm: str) -> dict[str, list[Seed]]:
    """Return the seeds that the arm and the baseline have no row of, by arm, running ones aside."""
    return {
        name: [
            seed
            for seed in scores.seeds
            if seed not in scores.by_arm.get(name, {}) and seed not in scores.running.get(name, ())
        ]
        for name in (arm, rule.baseline)
    }


def _restored(verdict: ArmVerdict, scores: Scores, rule: ScoreRule) -> ArmVerdict:
    """Return a verdict on scaled scores in the unit and with the signs of the scores themselves."""

    def turned(interval: Interval | None) -> Interval | None:
        return None if interval is None else Interval(*sorted(edge / rule.factor + 0.0 for edge in interval))

    improvement = verdict.improvement
    if improvement is None:
        arm, baseline = ([*scores.by_arm.get(name, {}).values()] for name in (verdict.arm, rule.baseline))
        improvement = unpaired_improvement(*_ranks(arm, baseline, falling=rule.direction == "min"))
    effect = verdict.smallest_detectable_effect
    return replace(
        verdict,
        margin=rule.margin,
        metric=rule.metric,
        # Zero is added since a difference of zero has no sign.
        difference=None if verdict.difference is None else verdict.difference / rule.factor + 0.0,
        interval=turned(verdict.interval),
        equivalence_interval=turned(verdict.equivalence_interval),
        improvement=improvement,
        smallest_detectable_effect=None if effect is None else effect / abs(rule.factor),
    )


def _ranks(
    arm: Sequence[float | None], baseline: Sequence[float | None], falling: bool
) -> tuple[list[float | None], list[float | None]]:
    """Return the scores of two arms as ranks, the best last: all that a comparison of each with each needs."""
    values = sorted({score for score in (*arm, *baseline) if score is not None}, reverse=falling)
    ranks: dict[float | None, float | None] = {value: float(rank) for rank, value in enumerate(values)}
    ranks[None] = None
    return [ranks[score] for score in arm], [ranks[score] for score in baseline]


def _summary(arm: str, scores: ArmScores) -> ScoreSummary:
    values = statistics.without_missing([*scores.values()])
    return ScoreSummary(
        arm=arm,
        n_runs=len(scores),
        n_null=len(scores) - len(values),
        iqm=float(statistics.interquartile_mean(values)) if len(values) else None,
        iqm_interval=statistics.bootstrap_interval(values),
    )
