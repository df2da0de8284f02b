"""The verdict for machines: an analysis in; the JSON tree of verdict.json, which docs/results.md explains, out.

The tree has a version. Fields are only added, each with a new version; none is renamed, and none changes its meaning,
unit or type. Equal rows give equal bytes: there is no path in it, and no time but that of a study's budget.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qsgd_ray.analysis.budget import budget_entry
from qsgd_ray.analysis.claim import CheckedClaim
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.analysis.summary import ArmSummary
from qsgd_ray.analysis.verdict import Verdict
from qsgd_ray.config import Study, metric_label
from qsgd_ray.reporting._verdict_tree import document, interval_entry

# Verdicts that end `--fail-on` with an error, by its word: each word takes in those before it.
FAILURES = {
    "worse": (Verdict.WORSE,),
    "inconclusive": (Verdict.WORSE, Verdict.INCONCLUSIVE),
}


def study_document(analysis: StudyAnalysis, *, finished: bool) -> dict[str, Any]:
    """Return the verdict of a study as a JSON tree.

    Args:
        analysis: the study's analysis.
        finished: every planned trial has ended.
    """
    study = analysis.study
    return document(
        study=study.name,
        question=study.question,
        source=None,
        finished=finished,
        metric=_metric_entry(study),
        baseline=study.baseline,
        rule=study.decision,
        headline=analysis.headline,
        arms=[_arm_entry(summary) for summary in analysis.summaries],
        verdicts=analysis.verdicts,
        claims=[_claim_entry(claim) for claim in analysis.claims],
        notes=[*analysis.missing, *analysis.notes],
        budget=budget_entry(analysis.spent),
    )


def _metric_entry(study: Study) -> dict[str, str]:
    """Return the metric that a study of one workload decides by, as the document has it."""
    return {
        "name": f"test {metric_label(study.workload, study.metric)}",
        "direction": study.metric.direction,
        "kind": study.metric.kind,
        "unit": study.metric.unit,
    }


def as_json(tree: Mapping[str, Any]) -> str:
    """Return a document as the text of verdict.json: ASCII alone, so that every terminal and parser takes it."""
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def is_failure(tree: Mapping[str, Any], word: str) -> bool:
    """Return True where `--fail-on WORD` ends with an error.

    Args:
        tree: the document of a verdict.
        word: a key of `FAILURES`: `worse`, or `inconclusive`, which takes in `worse`.
    """
    return any(entry["verdict"] in FAILURES[word] for entry in tree["verdicts"])


def _arm_entry(summary: ArmSummary) -> dict[str, Any]:
    """Return the runs of an arm as the document has them."""
    return {
        "arm": summary.arm,
        "n_runs": summary.n_runs,
        "n_null": summary.n_null,
        "iqm": summary.iqm,
        "iqm_interval": interval_entry(summary.iqm_interval),
    }


def _claim_entry(claim: CheckedClaim) -> dict[str, Any]:
    return {
        "claim": claim.name,
        "text": claim.text,
        "source": claim.source,
        "arm": claim.arm,
        "against": claim.against,
        "at": claim.at,
        "against_at": claim.against_at,
        "finding": claim.finding.value,
        "reason": claim.why,
        "unit": claim.unit,
        "claimed": claim.claimed,
        "measured": claim.measured,
        "interval": interval_entry(claim.interval),
        "n_pairs": claim.n_pairs,
    }
