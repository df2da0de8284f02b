"""The reason of a verdict on scores: its numbers in the unit of the scores in, one or two sentences out.

They are those of a study's verdict (_verdict_sentences.py), but for pairs that are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qsgd_ray.analysis._pair_tests import MIN_PAIRS
from qsgd_ray.analysis._verdict_sentences import Formats, reason_of_complete, reason_with_losses
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.analysis.score_rule import ScoreRule
from qsgd_ray.analysis.verdict import ArmVerdict

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
    formats = _formats(rule)
    if v.n_lost:
        return reason_with_losses(v, p, rule.scaled, formats)
    return reason_of_complete(v, rule.decision.alpha, formats)


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


def _formats(rule: ScoreRule) -> Formats:
    numbers = rule.numbers
    unit = f" {numbers.unit_of_differences}".rstrip()
    sense = "higher is better" if rule.direction == "max" else "lower is better"

    def compared(v: ArmVerdict, amount: str) -> str:
        word = "higher" if (v.difference or 0.0) > 0 else "lower"
        return f"the {rule.score} of {v.arm} is {amount} {word} than that of {v.baseline} ({sense})"

    return Formats(lambda value: f"{numbers.difference(value)}{unit}", numbers.size, compared)
