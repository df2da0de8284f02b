"""The costs of a study: the trials' rows in; a ledger of seconds, circuits and tokens by stage and arm, and the budgets
of the arms' searches, out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from qsgd_ray.config import STAGES
from qsgd_ray.outcome import REPEATED
from qsgd_ray.results import StudyTables

_SECONDS = ("train_s", "circuit_wait_s", "evaluation_s", "idle_s", "elapsed_s", "circuit_s")
_COUNTS = ("n_circuits", "n_tokens", "epochs_run", "steps")


@dataclass(frozen=True)
class Cost:
    """The costs of the trials of one stage and arm, added up. Columns are those of the table of trials.

    Attributes:
        stage: None in the sum of all.
        arm: None in the sum of all.
        n_trials: trials with a row.
        sums: by column, seconds or counts, nulls left out; None where all are null.
        n_null: by column, the trials without the number.
        money: their share of what the study's nodes cost, by the trials' own time, with all that was idle between them;
            None without a price, or where no trial has told its time.
    """

    stage: str | None
    arm: str | None
    n_trials: int
    sums: dict[str, float | None]
    n_null: dict[str, int]
    money: float | None = None


@dataclass(frozen=True)
class Budget:
    """The budget of an arm's search, and what was spent of it.

    Attributes:
        arm: its name.
        planned: trials that the study plans.
        trials: trials that have ended; a lost one is tried again and does not count.
        epochs_each: epochs a trial, at most.
        epochs: run by all trials; None where no trial has the number, like the two that follow.
        steps: of the optimizer, of all trials.
        elapsed_s: seconds of all trials from start to end.
    """

    arm: str
    planned: int
    trials: int
    epochs_each: int
    epochs: float | None
    steps: float | None
    elapsed_s: float | None


def ledger(tables: StudyTables) -> tuple[Cost, ...]:
    """Return a line for every stage and arm that has trials, in the study's order; the last is the sum of all."""
    lines = []
    for stage in (*STAGES, *_other_stages(tables)):
        for arm in tables.study.arms:
            rows = _rows_of(tables.trials, stage, arm.name)
            if rows.num_rows:
                lines.append(_cost(stage, arm.name, rows))
    total = _cost(None, None, tables.trials)
    budget, all_s = tables.study.budget, total.sums["elapsed_s"]
    money = None if budget is None else budget.money(tables.spending.node_seconds)
    if money is None or not all_s:
        return (*lines, replace(total, money=money))
    shares = [(line.sums["elapsed_s"] or 0.0) / all_s for line in lines]
    return (
        *(replace(line, money=share * money) for line, share in zip(lines, shares, strict=True)),
        replace(total, money=money),
    )


def budgets(tables: StudyTables) -> tuple[Budget, ...]:
    """Return the budgets of all arms that are searched, in the study's order."""
    lines = []
    for arm in tables.study.arms:
        planned = tables.study.planned("search", arm)
        if planned:
            rows = _rows_of(tables.trials, "search", arm.name)
            sums = _cost("search", arm.name, rows).sums
            ended = rows.filter(pc.invert(pc.is_in(rows["ending"], pa.array([str(ending) for ending in REPEATED]))))
            spent = (sums["epochs_run"], sums["steps"], sums["elapsed_s"])
            lines.append(Budget(arm.name, planned, ended.num_rows, tables.study.search.epochs, *spent))
    return tuple(lines)


def budget_sentence(lines: Sequence[Budget]) -> str:
    """Say in one sentence if all arms were tuned with the same budget, and spent it (protocol 2)."""
    if not lines:
        return "No arm is searched."
    first = lines[0]
    budget = f"{first.planned} trials of at most {first.epochs_each} epochs"
    if any((b.planned, b.epochs_each) != (first.planned, first.epochs_each) for b in lines):
        return "The arms' budgets differ."
    behind = [f"{b.arm} {b.trials} of {b.planned}" for b in lines if b.trials < b.planned]
    if behind:
        return f"Every arm is given {budget}; not spent yet: {', '.join(behind)}."
    over = [f"{b.arm} {b.trials}" for b in lines if b.trials > b.planned]
    if over:
        return f"Every arm is given {budget}; overspent: {', '.join(over)}."
    return f"Equal: every arm was given {budget}, and spent them."


def _other_stages(tables: StudyTables) -> list[str]:
    return sorted(set(tables.trials["stage"].unique().to_pylist()) - set(STAGES))


def _rows_of(trials: pa.Table, stage: str, arm: str) -> pa.Table:
    return trials.filter(pc.and_(pc.equal(trials["stage"], stage), pc.equal(trials["arm"], arm)))


def _cost(stage: str | None, arm: str | None, rows: pa.Table) -> Cost:
    columns = {name: rows[name] for name in _COUNTS} | {name: _possible(rows[name]) for name in _SECONDS}
    return Cost(
        stage=stage,
        arm=arm,
        n_trials=rows.num_rows,
        sums={name: pc.sum(column).as_py() for name, column in columns.items()},
        n_null={name: column.null_count for name, column in columns.items()},
    )


def _possible(seconds: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return seconds with null for those below zero: earlier versions stored them where a clock had been set back."""
    return pc.if_else(pc.less(seconds, 0), None, seconds)
