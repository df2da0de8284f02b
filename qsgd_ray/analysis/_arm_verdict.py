"""The verdict on one arm, as a value: the outcome, and the numbers that it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from qsgd_ray.analysis.improvement import Improvement
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.config import ACCURACY, Metric


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
