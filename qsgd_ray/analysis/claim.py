"""One claim of the paper (arXiv:2511.01918): what is claimed, what was measured, and the finding between the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from qsgd_ray.analysis.statistics import Estimate, Interval
from qsgd_ray.analysis.verdict import MIN_PAIRS
from qsgd_ray.config import ClaimId


class Finding(StrEnum):
    """The outcome of a claim; `claims` has the rule."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, checked by a study.

    Attributes:
        id: C1 to C7.
        text: what the paper says.
        arm: the arm that stands for the paper's method.
        finding: the outcome.
        why: the reason, one or two sentences.
        unit: of `claimed`, `measured` and `interval`: `points` (fractions of accuracy, shown as percentage points),
            `share` (a relative change, shown in percent) or `nats`.
        claimed: the paper's figure; None for a claim in words.
        measured: the study's figure; None where the finding is "not measured", and where a claim in words has none.
        interval: 95 %, of the measured figure; not corrected for the number of claims.
        n_pairs: pairs of runs behind it; 0 where nothing was measured.
    """

    id: ClaimId
    text: str
    arm: str
    finding: Finding
    why: str
    unit: str = "share"
    claimed: float | None = None
    measured: float | None = None
    interval: Interval | None = None
    n_pairs: int = 0


def with_finding(draft: Claim, change: Estimate | None, n_pairs: int) -> Claim:
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


def not_measured(draft: Claim, why: str) -> Claim:
    """Return a claim that the study has nothing to measure by.

    Args:
        draft: the claim.
        why: the reason.
    """
    return replace(draft, finding=Finding.NOT_MEASURED, why=why)


def _finding(draft: Claim, change: Estimate, n_pairs: int) -> tuple[Finding, str]:
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
