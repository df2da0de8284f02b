"""What the confirmation shows of each arm: result tables in, one `ArmSummary` an arm out.

Accuracies are fractions of one, times are seconds. Missing is None, never zero, and counted (protocol 12).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._throughput import Throughput, throughput
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.time_to_target import Saved, TimeToTarget, saved, time_to_target
from qsgd_ray.config import StudyError
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables

METRIC = "test_accuracy"

Row = dict[str, Any]


@dataclass(frozen=True)
class ArmSummary:
    """The confirmation of one arm; medians over its runs, None where no run has the number.

    `iqm`: of the runs with a result; `n_null` have none. `epochs_saved`: against the baseline's runs of the same seeds,
    None where no run of either reached the target.
    `seconds_to_target_circuits_free`: the same clock less the wait for circuits. `step_ratio`: |lambda * Q| / |Adam
    step|, None where nothing is perturbed. `overhead`: wall seconds per epoch over the baseline's, less one.
    `train_loss`: mean over all steps of a run. `answers` and what follows: sums over the runs, None where none was
    asked. `throughput`: how its runs went through their data.
    """

    arm: str
    n_runs: int
    n_completed: int
    n_null: int
    endings: dict[str, int]
    iqm: float | None
    iqm_interval: Interval | None
    epochs_to_target: TimeToTarget
    epochs_saved: Saved | None
    seconds_to_target: TimeToTarget
    seconds_to_target_circuits_free: TimeToTarget
    step_ratio: float | None
    learning_rate: float | None
    lambda_: float | None
    n_qubits: int | None
    source: str | None
    scope: str | None
    wall_s_per_epoch: float | None
    overhead: float | None
    train_loss: float | None
    test_loss: float | None
    answers: int | None
    answers_right: int | None
    answers_without_number: int | None
    throughput: Throughput


def confirm_rows(tables: StudyTables, arm: str) -> list[Row]:
    """The confirmation's rows of `arm` in the order of the seeds, one a seed; StudyError where there are two."""
    seeds = tables.study.confirm.seeds
    rows = tables.rows("confirm", arm)
    by_seed = {row["seed"]: row for row in rows}
    if len(by_seed) < len(rows):
        raise StudyError(f"DIR: got more than one confirmation of {arm} at a seed; allowed: one, at the chosen point")
    return [by_seed[seed] for seed in seeds if seed in by_seed]


def result(row: Row, metric: str = METRIC) -> float | None:
    """The metric of a completed run, else None."""
    value = row[metric]
    if row["ending"] != Ending.COMPLETED or value is None or not np.isfinite(value):
        return None
    return float(value)


def arm_summaries(tables: StudyTables) -> tuple[ArmSummary, ...]:
    """The confirmation of every arm, the baseline included, in the study's order.

    A target that was reached counts as a hit however the run ended: the clock stopped when it was reached.
    """
    rows = {arm.name: confirm_rows(tables, arm.name) for arm in tables.study.arms}
    summaries = {name: _summary(name, of_arm) for name, of_arm in rows.items()}
    base = summaries[tables.study.baseline].wall_s_per_epoch
    return tuple(
        replace(
            s,
            overhead=s.wall_s_per_epoch / base - 1 if base and s.wall_s_per_epoch is not None else None,
            epochs_saved=_epochs_saved(rows[s.arm], rows[tables.study.baseline], tables.study.confirm.epochs),
        )
        if s.arm != tables.study.baseline
        else s
        for s in summaries.values()
    )


def _epochs_saved(arm: list[Row], baseline: list[Row], budget: int) -> Saved | None:
    """By the seeds that have ended in both arms; a lost run is tried again."""
    left, right = (
        {row["seed"]: row["epochs_to_target"] for row in rows if row["ending"] != Ending.LOST}
        for rows in (arm, baseline)
    )
    both = [seed for seed in left if seed in right]
    return saved([left[seed] for seed in both], [right[seed] for seed in both], budget)


def _summary(arm: str, rows: list[Row]) -> ArmSummary:
    accuracies = np.array([value for row in rows if (value := result(row)) is not None], dtype=np.float64)
    seconds = [row["seconds_to_target"] for row in rows]
    waits = [row["circuit_wait_s_to_target"] for row in rows]
    free = [None if s is None else max(0.0, s - wait) for s, wait in zip(seconds, waits, strict=True)]
    chosen: Row = rows[0] if rows else {}
    return ArmSummary(
        arm=arm,
        n_runs=len(rows),
        n_completed=sum(row["ending"] == Ending.COMPLETED for row in rows),
        n_null=len(rows) - len(accuracies),
        endings=dict(Counter(row["ending"] for row in rows)),
        iqm=float(statistics.interquartile_mean(accuracies)) if len(accuracies) else None,
        iqm_interval=statistics.bootstrap_interval(accuracies),
        epochs_to_target=time_to_target([row["epochs_to_target"] for row in rows]),
        epochs_saved=None,
        seconds_to_target=time_to_target(seconds),
        seconds_to_target_circuits_free=time_to_target(free),
        step_ratio=median([ratio for row in rows if (ratio := step_ratio(row)) is not None]),
        learning_rate=chosen.get("learning_rate"),
        lambda_=chosen.get("lambda_"),
        n_qubits=chosen.get("n_qubits"),
        source=chosen.get("source"),
        scope=chosen.get("scope"),
        wall_s_per_epoch=median(
            [row["wall_s"] / row["epochs_run"] for row in rows if row["wall_s"] is not None and row["epochs_run"]]
        ),
        overhead=None,
        train_loss=median(_known(rows, "mean_train_loss")),
        test_loss=median(_known(rows, "test_loss")),
        answers=_total(rows, "answers"),
        answers_right=_total(rows, "answers_right"),
        answers_without_number=_total(rows, "answers_without_number"),
        throughput=throughput(rows),
    )


def step_ratio(row: Row) -> float | None:
    """|lambda * Q| / |Adam step| of a trial or a measurement; None where nothing is perturbed (protocol 13)."""
    perturbation, adam = row["perturbation_norm"], row["adam_step_norm"]
    return perturbation / adam if perturbation is not None and adam else None


def _known(rows: list[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if row[column] is not None]


def _total(rows: list[Row], column: str) -> int | None:
    known = _known(rows, column)
    return sum(known) if known else None


def seconds_a_step(row: Row) -> float | None:
    """Of a trial, the wait for circuits among them."""
    return row["wall_s"] / row["steps"] if row["wall_s"] is not None and row["steps"] else None


def median(values: list[float]) -> float | None:
    """None of no value."""
    return float(np.median(values)) if values else None
