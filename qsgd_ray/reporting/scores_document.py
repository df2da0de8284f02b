"""The verdict on scores for machines: a `ScoreAnalysis` in, the JSON tree of verdict.json out."""

from __future__ import annotations

from typing import Any

from qsgd_ray.analysis.scores import ScoreAnalysis
from qsgd_ray.reporting._verdict_tree import document, interval_entry


def scores_document(analysis: ScoreAnalysis) -> dict[str, Any]:
    """Return the verdicts on scores as a JSON tree, that of a study's without its study, question and claims."""
    rule = analysis.rule
    return document(
        study=None,
        question=None,
        source=analysis.scores.source,
        finished=analysis.finished,
        metric={"name": rule.score, "direction": rule.direction, "kind": rule.kind, "unit": rule.unit},
        baseline=rule.baseline,
        rule={"margin": rule.margin, "alpha": rule.decision.alpha, "power": rule.decision.power},
        headline=analysis.headline,
        arms=[
            {
                "arm": summary.arm,
                "n_runs": summary.n_runs,
                "n_null": summary.n_null,
                "iqm": summary.iqm,
                "iqm_interval": interval_entry(summary.iqm_interval),
            }
            for summary in analysis.summaries
        ],
        verdicts=analysis.verdicts,
        notes=analysis.scores.notes,
    )
