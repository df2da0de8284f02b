"""Two studies side by side: their tables in; what differs between them, and how the arms of the same name did, out.

For the question after a change of machine, version or setting: is it the same experiment, with the same results?
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.summary import ArmSummary, Row, arm_summaries, confirm_rows, median, result, seconds_a_step
from qsgd_ray.paths import leaves
from qsgd_ray.results import StudyTables

# Of provenance: when and how often something ran differs always, and says nothing.
PASSING = ("started_at", "resumed")


@dataclass(frozen=True)
class Difference:
    """A leaf of the study's settings or of its provenance that the two tell differently; None: one has no such leaf."""

    what: str
    path: str
    left: str | None
    right: str | None


@dataclass(frozen=True)
class SameArm:
    """An arm that both studies have; right minus left, right over left, None where either lacks the number.

    `n_pairs`: seeds with a result in both. `difference`: mean over them. `n_hashed`: seeds at which both tell the hash
    of their final parameters, `n_same_bits` of these are the same.
    """

    arm: str
    left: ArmSummary
    right: ArmSummary
    n_pairs: int
    difference: float | None
    interval: Interval | None
    n_hashed: int
    n_same_bits: int
    left_s_per_step: float | None
    right_s_per_step: float | None

    @property
    def step_time_ratio(self) -> float | None:
        if not self.left_s_per_step or self.right_s_per_step is None:
            return None
        return self.right_s_per_step / self.left_s_per_step


@dataclass(frozen=True)
class Comparison:
    """`only_left`, `only_right`: arms without a counterpart of their name."""

    differences: tuple[Difference, ...]
    arms: tuple[SameArm, ...]
    only_left: tuple[str, ...]
    only_right: tuple[str, ...]


def compare(left: StudyTables, right: StudyTables) -> Comparison:
    """`left` is what came before, `right` what came of it."""
    names = [[arm.name for arm in tables.study.arms] for tables in (left, right)]
    both = [name for name in names[0] if name in names[1]]
    summaries = [{s.arm: s for s in arm_summaries(tables)} for tables in (left, right)]
    settings = [_settings(tables, both) for tables in (left, right)]
    records = [{k: v for k, v in tables.provenance.items() if k not in PASSING} for tables in (left, right)]
    return Comparison(
        (*_differences("setting", *settings), *_differences("provenance", *records)),
        tuple(_same_arm(name, left, right, summaries[0][name], summaries[1][name]) for name in both),
        tuple(name for name in names[0] if name not in both),
        tuple(name for name in names[1] if name not in both),
    )


def _settings(tables: StudyTables, arms: list[str]) -> dict[str, Any]:
    """Of the study, with these arms alone: an arm that the other lacks differs as a whole, and is named as one."""
    tree = tables.study.model_dump(mode="json")
    return tree | {"arms": [arm for arm in tree["arms"] if arm["name"] in arms]}


def _same_arm(
    arm: str, left: StudyTables, right: StudyTables, left_summary: ArmSummary, right_summary: ArmSummary
) -> SameArm:
    before, after = ({row["seed"]: row for row in confirm_rows(tables, arm)} for tables in (left, right))
    seeds = [seed for seed in before if seed in after]
    results = [(result(before[seed]), result(after[seed])) for seed in seeds]
    pairs = np.array([pair for pair in results if None not in pair], dtype=np.float64).reshape(-1, 2)
    differences = statistics.paired_differences(pairs[:, 1], pairs[:, 0])
    hashes = [(before[seed]["parameters_sha256"], after[seed]["parameters_sha256"]) for seed in seeds]
    hashed = [pair for pair in hashes if None not in pair]
    return SameArm(
        arm=arm,
        left=left_summary,
        right=right_summary,
        n_pairs=len(differences),
        difference=float(np.mean(differences)) if len(differences) else None,
        interval=statistics.difference_interval(differences),
        n_hashed=len(hashed),
        n_same_bits=sum(one == other for one, other in hashed),
        left_s_per_step=_s_per_step(list(before.values())),
        right_s_per_step=_s_per_step(list(after.values())),
    )


def _s_per_step(rows: list[Row]) -> float | None:
    """Median over the runs; evaluation aside."""
    return median([seconds for row in rows if (seconds := seconds_a_step(row)) is not None])


def _differences(what: str, left: Any, right: Any) -> Iterator[Difference]:
    before, after = ({path: _as_json(value) for path, value in leaves(tree)} for tree in (left, right))
    for path in [*before, *(path for path in after if path not in before)]:
        if before.get(path) != after.get(path):
            yield Difference(what, path, before.get(path), after.get(path))


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
