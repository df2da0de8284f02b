"""The rule by which scores of any origin are judged, and how they are scaled for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qsgd_ray.analysis.metric_numbers import MetricNumbers
from qsgd_ray.config import Decision, Metric

# The margin of scores that are no shares is scaled to about this.
_SCALED_MARGIN = 2**-7
# The largest score in margins: beyond it float64 has no digits left for a difference.
MOST_MARGINS = 1e100


@dataclass(frozen=True)
class ScoreRule:
    """The rule by which scores are judged.

    Attributes:
        score: name of the metric.
        baseline: name of the arm that the others are compared with.
        decision: alpha and power, and the margin of a share.
        margin: the smallest difference that matters, > 0, in the unit of the scores.
        direction: `max` where more is better, `min` where less is.
        kind: `share` for fractions of one, else `mean`.
        unit: of scores that are no shares; empty: they have none.
        missing: what a seed without a row of an arm is, where other arms have one: `pending` (a run that is still to
            come), `lost` (a run without a result) or `drop` (no pair).
    """

    score: str
    baseline: str
    decision: Decision
    margin: float
    direction: str = "max"
    kind: str = "mean"
    unit: str = ""
    missing: str = "pending"

    @property
    def metric(self) -> Metric:
        """The metric of the scores; its name is the source's own, which need not be one of a study's metrics."""
        return Metric.model_construct(name=self.score, direction=self.direction, unit=self.unit, kind=self.kind)

    @property
    def numbers(self) -> MetricNumbers:
        """The formats of the metric's numbers."""
        return MetricNumbers(self.kind, self.unit, self.margin)

    @property
    def factor(self) -> float:
        """The number that scores are multiplied by before the rule: a power of two, negative where less is better."""
        scale = 1.0 if self.kind == "share" else 2.0 ** (math.frexp(_SCALED_MARGIN)[1] - math.frexp(self.margin)[1])
        return -scale if self.direction == "min" else scale

    @property
    def scaled(self) -> Decision:
        """The rule for scores times `factor`."""
        return self.decision.model_copy(update={"margin": abs(self.factor) * self.margin})
