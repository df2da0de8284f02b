"""One claim that a study has checked: what is claimed, what was measured, and the finding between the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from qsgd_ray.analysis.statistics import Estimate, Interval
from qsgd_ray.analysis.verdict import MIN_PAIRS
from qsgd_ray.config.stages import Setting


class Finding(StrEnum):
    """The outcome of a claim; `claims` has the rule."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class CheckedClaim:
    """A claim as a study has found it.

    Attributes:
        name: of the claim, such as C1.
        text: what is claimed, in words.
        arm: the arm that stands for the method.
        finding: the outcome.
        why: the reason, one or two sentences.
        unit: of `claimed`, `measured` and `interval`: `points` (fractions of a share, shown as percentage points),
            `share` (a relative change, shown in percent) or the unit of a metric, such as `nats`. Along an axis they
            are of one unit of the axis.
        claimed: the claimed figure; None for a claim in words.
        measured: the study's figure; None where the finding is "not measured", and where a claim in words has none.
        interval: 95 %, of the measured figure; not corrected for the number of claims.
        n_pairs: pairs of runs behind it; 0 where nothing was measured.
        against: the arm that `arm` is compared with; None: the study's baseline.
        at: the setting of the map at which it is; None: the confirmation.
        against_at: the setting of the map that it is compared with, of the same arm; None: another arm is.
        source: where it is claimed; None: not told.
    """

    name: str
    text: str
    arm: str
    finding: Finding
    why: str
    unit: str = "share"
    claimed: float | None = None
    measured: float | None = None
    interval: Interval | None = None
    n_pairs: int = 0
    against: str | None = None
    at: Setting | None = None
    against_at: Setting | None = None
    source: str | None = None


def with_finding(draft: CheckedClaim, change: Estimate | None, n_pairs: int) -> CheckedClaim:
    """Return a claim with a figure as it was measured, and its finding.

    Args:
        draft: the claim, not measured yet.
        change: the figure with its interval, in the claim's unit; None where no pair of runs has the number.
        n_pairs: pairs of runs behind it.
    """
    if change is None:
        return not_measured(draft, "No pair of runs has the number.")
    finding, why = _finding(draft, change, n_pairs)
    return replace(draft, finding=finding, why=why, measured=change.value, interval=change.interval, n_pairs=n_pairs)


def not_measured(draft: CheckedClaim, why: str) -> CheckedClaim:
    """Return a claim that the study has nothing to measure by.

    Args:
        draft: the claim.
        why: the reason.
    """
    return replace(draft, finding=Finding.NOT_MEASURED, why=why)


def _finding(draft: CheckedClaim, change: Estimate, n_pairs: int) -> tuple[Finding, str]:
    assert draft.claimed is not None
    if n_pairs < MIN_PAIRS or change.interval is None:
        return Finding.INCONCLUSIVE, f"{n_pairs} pairs of runs are fewer than the {MIN_PAIRS} that a finding needs."
    low, high = sorted(edge / draft.claimed for edge in change.interval)  # as shares of what is claimed
    if low > 0 and high >= 1:
        beyond = "lies beyond" if low > 1 else "holds"
        return Finding.SUPPORTED, f"The interval {beyond} the claimed figure and excludes no effect."
    if high < 1:
        side = (
            "and no effect too" if low > 0 else "no effect is in it" if high >= 0 else "the effect has the other sign"
        )
        return Finding.CONTRADICTED, f"The interval excludes the claimed figure; {side}."
    return Finding.INCONCLUSIVE, "The interval holds both the claimed figure and no effect."
