"""Several workloads judged together: the analysis of each part in; a verdict an arm over all of them out.

The paired difference of a workload, arm - baseline at a seed, is turned so that more is better and divided by the
workload's margin; the mean of these over the workloads is the seed's joint score. The rule of `verdict.py` then decides
on the joint scores with a margin of one, and Holm's correction runs over the arms. The seeds are the same in all
workloads, so a seed counts as one pair: workloads are fixed, and only seeds are a sample.

- A seed is complete where it is so in every workload. It is pending while any of its runs is.
- A run without a result loses, however the seed went elsewhere: its value has no bound below. Where the arm lacks a
  result in one workload and the baseline in another, the seed ties.
- The verdicts on single workloads that stand beside it carry Holm's correction over all arms on all workloads.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from qsgd_ray.analysis._headline import headline
from qsgd_ray.analysis._rows import confirm_rows
from qsgd_ray.analysis.budget import _is_spent
from qsgd_ray.analysis.pairs import Pairs, _Lack, _lack_of, _pairs_of_runs, _runs_by_seed, _SeedRuns
from qsgd_ray.analysis.statistics import DECIMALS
from qsgd_ray.analysis.study_analysis import StudyAnalysis
from qsgd_ray.analysis.verdict import ArmVerdict, _with_missing, decide, judge_together
from qsgd_ray.config import Metric, Study
from qsgd_ray.results import StudyTables

# The metric of a joint verdict; an arm against itself scores 0.
JOINT_SCORE = Metric("joint_score", unit="margins")
ESTIMAND = (
    "The joint score is the mean over the workloads of the paired difference, each in units of its workload's margin "
    "and turned so that more is better; it says nothing of workloads that are not in the study."
)
_ONE_MARGIN = re.compile(r"(the margin of )?\b1 margins")


class _WorkloadRuns(NamedTuple):
    """The results of an arm and its baseline on one workload.

    Attributes:
        runs: by seed the results of both, each None where it is missing; None: one is still to come.
        metric: of the results, with its direction.
        margin: the smallest difference that matters, > 0 in the metric's unit.
    """

    runs: Mapping[int, _SeedRuns]
    metric: Metric
    margin: float


@dataclass(frozen=True)
class JointAnalysis:
    """Everything that the rows of a study of several workloads show.

    Attributes:
        study: the whole.
        parts: the analysis of each workload by itself, whose verdicts are corrected over its arms alone.
        verdicts: over all workloads, one for each arm but the baseline, in the study's order; in margins.
        cells: by workload the verdicts on its arms, corrected over all arms on all workloads.
        notes: remarks on how the rows came about, one line each.
    """

    study: Study
    parts: Mapping[str, StudyAnalysis] = field(repr=False)
    verdicts: tuple[ArmVerdict, ...]
    cells: Mapping[str, tuple[ArmVerdict, ...]]
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """All joint verdicts in one sentence."""
        sentence = headline(self.verdicts)
        n = len(self.parts)
        over = "On one workload" if n == 1 else f"Over {n} workloads"
        return f"{over}, of {sentence.removeprefix('Of ')}" if sentence.startswith("Of ") else sentence


def analyse_jointly(study: Study, parts: Mapping[str, StudyAnalysis], notes: Sequence[str] = ()) -> JointAnalysis:
    """Return the joint verdicts of a study of several workloads.

    Args:
        study: the whole, with `workloads`.
        parts: the analysis of each of its parts, by the workload's name.
        notes: on the study as a whole.
    """
    of_parts = [f"{name}: {note}" for name, part in parts.items() for note in (*part.missing, *part.notes)]
    tables = {name: part.tables for name, part in parts.items()}
    cells = judge_together([*tables.values()])
    return JointAnalysis(
        study=study,
        parts=parts,
        verdicts=judge_jointly(study, tables),
        cells=dict(zip(parts, cells, strict=True)),
        notes=(*notes, *of_parts),
    )


def judge_jointly(study: Study, parts: Mapping[str, StudyTables]) -> tuple[ArmVerdict, ...]:
    """Return a joint verdict for every arm but the baseline, in the study's order, from the parts' rows alone.

    Args:
        study: the whole, with `workloads`.
        parts: the tables of each part, by the workload's name.
    """
    arms = [arm.name for arm in study.arms if arm.name != study.baseline]
    runs = {arm: {name: _runs(tables, arm) for name, tables in parts.items()} for arm in arms}
    pairs = {arm: _joint_pairs([*of_arm.values()]) for arm, of_arm in runs.items()}
    stopped = {name for name, tables in parts.items() if _is_spent(tables)}
    # Seeds that nothing but a spent budget keeps from their end: a stop by budget looks at no result.
    missing = {arm: pairs[arm].pending for arm in arms if stopped.issuperset(_pending(runs[arm]))}
    pairs = {arm: replace(of_arm, pending=0) if missing.get(arm) else of_arm for arm, of_arm in pairs.items()}
    verdicts = []
    for verdict in _decide_jointly(pairs, study):
        reason = f"{_ONE_MARGIN.sub('one margin', verdict.reason)}{_incomplete(runs[verdict.arm])}"
        verdict = replace(verdict, reason=reason)
        verdicts.append(_with_missing(verdict, n) if (n := missing.get(verdict.arm)) else verdict)
    return tuple(verdicts)


def _pending(workloads: Mapping[str, _WorkloadRuns]) -> set[str]:
    """Return the workloads on which a run has yet to end."""
    return {name for name, workload in workloads.items() if None in workload.runs.values()}


def _decide_jointly(pairs: Mapping[str, Pairs], study: Study) -> tuple[ArmVerdict, ...]:
    """Return the verdicts on joint scores, with Holm's correction over the arms.

    Args:
        pairs: each arm's joint scores, as `_joint_pairs` returns them.
        study: its decision says alpha and power.
    """
    rule = study.decision.model_copy(update={"margin": 1.0, "margins": {}})
    return decide(pairs, rule, study.baseline, JOINT_SCORE)


def _joint_pairs(workloads: Sequence[_WorkloadRuns]) -> Pairs:
    """Return the joint scores of an arm as pairs, a seed each.

    Args:
        workloads: the arm's results on each, at the same seeds, at least one.

    Example:
        >>> loss = _WorkloadRuns({1: (0.5, 0.7), 2: (0.6, 0.6)}, Metric("loss", direction="min"), margin=0.1)
        >>> share = _WorkloadRuns({1: (0.9, 0.9), 2: (0.9, 0.8)}, Metric("accuracy", kind="share"), margin=0.05)
        >>> _joint_pairs([loss, share]).differences.tolist()
        [1.0, 1.0]
    """
    gains: list[dict[int, float]] = []
    decimals = DECIMALS
    for runs, metric, margin in workloads:
        pairs = _pairs_of_runs(runs, metric).gains(metric)
        complete = [seed for seed, pair in runs.items() if _lack_of(pair) is None]
        gains.append(dict(zip(complete, (pairs.differences / margin).tolist(), strict=True)))
        # The digits that the differences have left, counted in margins.
        decimals = min(decimals, pairs.decimals + math.floor(math.log10(margin)))
    scores: list[float] = []
    counts: Counter[str] = Counter()
    for seed in workloads[0].runs:
        lacks = {lack for workload in workloads if (lack := _lack_of(workload.runs[seed])) is not None}
        if lacks:
            counts[_joint_lack(lacks)] += 1
        else:  # the sum of `fsum` is the same in any order
            scores.append(math.fsum(of_workload[seed] for of_workload in gains) / len(gains))
    differences = np.asarray(np.round(scores, decimals), dtype=np.float64) + 0.0  # and no zero with a minus
    return Pairs(differences, **counts, decimals=decimals)


def _joint_lack(lacks: set[_Lack]) -> _Lack:
    if "pending" in lacks:
        return "pending"
    if lacks >= {"arm_lost", "baseline_lost"} or lacks == {"both_lost"}:
        return "both_lost"
    return "arm_lost" if "arm_lost" in lacks else "baseline_lost"


def _runs(tables: StudyTables, arm: str) -> _WorkloadRuns:
    study = tables.study
    left, right = (confirm_rows(tables, name) for name in (arm, study.baseline))
    runs = _runs_by_seed(left, right, study.confirm.seeds, study.metric)
    return _WorkloadRuns(runs, study.metric, study.decision.margin)


def _incomplete(workloads: Mapping[str, _WorkloadRuns]) -> str:
    """Return a sentence on the seeds that are complete in all workloads; empty where all are."""
    complete = {
        name: {seed for seed, pair in workload.runs.items() if _lack_of(pair) is None}
        for name, workload in workloads.items()
    }
    n_seeds = len(next(iter(workloads.values())).runs)
    in_all = set.intersection(*complete.values())
    if len(in_all) == n_seeds or len(workloads) == 1:
        return ""
    counts = ", ".join(f"{name} {len(seeds)}" for name, seeds in complete.items())
    return f" Complete in all {len(workloads)} workloads: {len(in_all)} of {n_seeds} seeds ({counts})."
