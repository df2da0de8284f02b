"""A study's claims, checked: result tables in, one `CheckedClaim` for each that the study names out.

A claim with a figure is measured over pairs of runs (`_claim_measures.py`), with a 95 % interval:

- supported: the interval excludes "no effect", and either holds the claimed figure or lies beyond it;
- contradicted: the interval excludes the claimed figure, on the side of less or of the other sign;
- inconclusive: it holds both, or there are fewer than `verdict.MIN_PAIRS` pairs;
- not measured: the study has nothing to measure it by.

A claim in words is taken to say several things (`Claim.parts`, judged in `_claims_in_words.py`): supported where all
are shown, contradicted where one is excluded, else inconclusive. The intervals are of one claim each, not corrected for
the number of claims.
"""

from __future__ import annotations

from dataclasses import replace

from qsgd_ray.analysis._claim_measures import measured, metric_of, unit_of_measure
from qsgd_ray.analysis._claims_in_words import finding_in_words
from qsgd_ray.analysis.claim import CheckedClaim, Finding, not_measured, with_finding
from qsgd_ray.config import Claim
from qsgd_ray.results import StudyTables


def check_claims(tables: StudyTables) -> tuple[CheckedClaim, ...]:
    """Return the claims of the study, in its order, each with what the rows show of it."""
    return tuple(_checked(tables, claim) for claim in tables.study.claims)


def _checked(tables: StudyTables, claim: Claim) -> CheckedClaim:
    contrast = claim.contrast
    draft = CheckedClaim(
        name=claim.name,
        text=claim.text,
        arm=contrast.arm,
        finding=Finding.NOT_MEASURED,
        why="",
        unit=claim.unit or unit_of_measure(claim.measure, metric_of(tables.study, claim.metric)),
        claimed=claim.claimed,
        against=contrast.against,
        at=contrast.at,
        against_at=contrast.against_at,
        source=claim.source,
    )
    if claim.unmeasured is not None:
        return not_measured(draft, claim.unmeasured)
    found = measured(tables, contrast, claim.measure, claim.metric)
    if isinstance(found, str):
        return not_measured(draft, found)
    if claim.claimed is not None:
        return with_finding(draft, found.estimate, found.n_pairs)
    finding, why = finding_in_words(tables, claim)
    checked = replace(draft, finding=finding, why=why, n_pairs=found.n_pairs)
    if found.estimate is None:
        return checked
    return replace(checked, measured=found.estimate.value, interval=found.estimate.interval)
