"""What a study cost: the trials' rows in; a ledger of seconds, circuits and tokens by stage and arm, and whether the
arms' searches had the same budget, out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from qsgd_ray.config import STAGES
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables

SECONDS = ("train_s", "circuit_wait_s", "evaluation_s", "idle_s", "elapsed_s", "circuit_s")
COUNTS = ("n_circuits", "n_tokens", "epochs_run", "steps")


@dataclass(frozen=True)
class Cost:
    """The trials of a stage and arm (None: of all). Sums leave nulls out: `n_null` counts, by column, the trials that
    do not tell; a sum of nulls alone is None. Columns as in the table of trials."""

    stage: str | None
    arm: str | None
    n_trials: int
    sums: dict[str, float | None]
    n_null: dict[str, int]


@dataclass(frozen=True)
class Budget:
    """What an arm's search was given and took. `trials`: that have ended; a lost one is tried again."""

    arm: str
    planned: int
    trials: int
    epochs_each: int
    epochs: float | None
    steps: float | None
    elapsed_s: float | None


def ledger(tables: StudyTables) -> list[Cost]:
    """A line for every stage and arm that has trials, in the study's order; the last is the sum of all."""
    lines = []
    for stage in (*STAGES, *_other_stages(tables)):
        for arm in tables.study.arms:
            rows = _of(tables.trials, stage, arm.name)
            if rows.num_rows:
                lines.append(_cost(stage, arm.name, rows))
    return [*lines, _cost(None, None, tables.trials)]


def budgets(tables: StudyTables) -> list[Budget]:
    """The searches side by side, arms without one left out."""
    found = []
    for arm in tables.study.arms:
        planned = tables.study.planned("search", arm)
        if planned:
            rows = _of(tables.trials, "search", arm.name)
            sums = _cost("search", arm.name, rows).sums
            ended = rows.filter(pc.not_equal(rows["ending"], str(Ending.LOST)))
            told = (sums["epochs_run"], sums["steps"], sums["elapsed_s"])
            found.append(Budget(arm.name, planned, ended.num_rows, tables.study.search.epochs, *told))
    return found


def verdict_on_budgets(found: Sequence[Budget]) -> str:
    """Whether the arms were tuned alike, in a sentence (protocol 2)."""
    if not found:
        return "No arm is searched."
    first = found[0]
    gift = f"{first.planned} trials of at most {first.epochs_each} epochs"
    if any((b.planned, b.epochs_each) != (first.planned, first.epochs_each) for b in found):
        return "The arms' budgets differ."
    behind = [f"{b.arm} {b.trials} of {b.planned}" for b in found if b.trials < b.planned]
    if behind:
        return f"Every arm is given {gift}; not spent yet: {', '.join(behind)}."
    over = [f"{b.arm} {b.trials}" for b in found if b.trials > b.planned]
    if over:
        return f"Every arm is given {gift}; overspent: {', '.join(over)}."
    return f"Equal: every arm was given {gift}, and spent them."


def _other_stages(tables: StudyTables) -> list[str]:
    return sorted(set(tables.trials["stage"].unique().to_pylist()) - set(STAGES))


def _of(trials: pa.Table, stage: str, arm: str) -> pa.Table:
    return trials.filter(pc.and_(pc.equal(trials["stage"], stage), pc.equal(trials["arm"], arm)))


def _cost(stage: str | None, arm: str | None, rows: pa.Table) -> Cost:
    columns = (*SECONDS, *COUNTS)
    return Cost(
        stage=stage,
        arm=arm,
        n_trials=rows.num_rows,
        sums={name: pc.sum(rows[name]).as_py() for name in columns},
        n_null={name: rows[name].null_count for name in columns},
    )
