"""The joint verdict for machines: the analysis of several workloads in; the JSON tree of verdict.json out.

It is the tree of a study's verdict, with the joint verdicts in it, and beside them `estimand` and `workloads`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from qsgd_ray.analysis.budget import joint_budget_entry
from qsgd_ray.analysis.joint import ESTIMAND, JOINT_SCORE, JointAnalysis
from qsgd_ray.reporting._verdict_tree import document, verdict_entry
from qsgd_ray.reporting.verdict_document import _arm_entry, _metric_entry


def joint_document(analysis: JointAnalysis, *, finished: bool) -> dict[str, Any]:
    """Return the verdicts of a study of several workloads as a JSON tree.

    Args:
        analysis: of the whole study.
        finished: every planned trial has ended.
    """
    study = analysis.study
    tree = document(
        study=study.name,
        question=study.question,
        source=None,
        finished=finished,
        metric={
            "name": "joint score",
            "direction": JOINT_SCORE.direction,
            "kind": JOINT_SCORE.kind,
            "unit": JOINT_SCORE.unit,
        },
        baseline=study.baseline,
        rule={"margin": 1.0, "alpha": study.decision.alpha, "power": study.decision.power},
        headline=analysis.headline,
        arms=_arms(analysis),
        verdicts=analysis.verdicts,
        notes=analysis.notes,
        budget=joint_budget_entry(study.budget, [part.spent for part in analysis.parts.values()]),
    )
    return tree | {"estimand": ESTIMAND, "workloads": _workloads(analysis)}


def _arms(analysis: JointAnalysis) -> list[dict[str, Any]]:
    """Return the arms' runs on all workloads; a mean over several metrics there is none."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for part in analysis.parts.values():
        for summary in part.summaries:
            counts[summary.arm][0] += summary.n_runs
            counts[summary.arm][1] += summary.n_null
    return [
        {"arm": arm, "n_runs": n_runs, "n_null": n_null, "iqm": None, "iqm_interval": None}
        for arm, (n_runs, n_null) in counts.items()
    ]


def _workloads(analysis: JointAnalysis) -> list[dict[str, Any]]:
    return [
        {
            "workload": name,
            "metric": _metric_entry(part.study),
            "margin": part.study.decision.margin,
            "arms": [_arm_entry(summary) for summary in part.summaries],
            "verdicts": [verdict_entry(verdict) for verdict in analysis.cells[name]],
        }
        for name, part in analysis.parts.items()
    ]
