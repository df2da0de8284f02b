"""The confirmation of each arm in numbers: result tables in, one `ArmSummary` an arm out.

Values are in the unit of the decision's metric, a fraction of one for a share; times are seconds. Missing is None,
never zero, and counted (protocol 12).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._claim_pairs import column_pairs
from qsgd_ray.analysis._rows import Row, confirm_rows, final_value, has_ended, median, step_ratio
from qsgd_ray.analysis._target_rows import with_times_to_target
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.analysis.throughput import Throughput, median_throughput
from qsgd_ray.analysis.time_to_target import TimeSaved, TimeToTarget, median_time, time_saved
from qsgd_ray.config import Metric
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.outcome import Ending, environment_error
from qsgd_ray.paths import leaves
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class ArmSummary:
    """The confirmation of one arm: medians over its runs, None where no run has the number.

    Attributes:
        arm: its name.
        n_runs: runs with a row.
        n_completed: of them, those that ended as planned.
        n_null: of them, those without a test value.
        endings: runs by ending.
        iqm: interquartile mean of the metric of test data, over the runs that have a value.
        iqm_interval: its 95 % bootstrap interval.
        epochs_to_target: epochs until the metric's target was reached on validation data; of no run where
            it has no target. So are the times that follow.
        epochs_saved: against the baseline's runs of the same seeds; None for the baseline, and where no run of either
            reached the target.
        seconds_to_target: seconds of training until then, the wait for circuits included and evaluation not.
        seconds_to_target_circuits_free: the same less the wait for circuits.
        step_ratio: |lambda * Q| / |Adam step|; None where nothing is perturbed.
        learning_rate: of the point that was confirmed; so are the four that follow.
        lambda_: strength of the perturbation.
        n_qubits: qubits a circuit.
        source: where the perturbation comes from.
        scope: which parameters are perturbed.
        wall_s_per_epoch: seconds of training an epoch.
        overhead: `wall_s_per_epoch` over the baseline's at the same seeds, less one; None for the baseline.
        overhead_interval: its 95 % bootstrap interval over the seeds; None of one seed.
        train_loss: mean over all steps of a run, nats.
        test_loss: nats.
        answers: of a language model to test problems, sum over the runs; None where none was asked for.
        answers_right: those with the right final number.
        answers_without_number: those without any number.
        throughput: tokens, FLOP and memory of its runs.
        optimizer: name of the class that it trains by; None: AdamW by the arm's own fields.
        optimizer_settings: its settings at that point, by their path; None where there is no name.
    """

    arm: str
    n_runs: int
    n_completed: int
    n_null: int
    endings: dict[str, int]
    iqm: float | None
    iqm_interval: Interval | None
    epochs_to_target: TimeToTarget
    epochs_saved: TimeSaved | None
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
    overhead_interval: Interval | None
    train_loss: float | None
    test_loss: float | None
    answers: int | None
    answers_right: int | None
    answers_without_number: int | None
    throughput: Throughput
    optimizer: str | None = None
    optimizer_settings: tuple[tuple[str, Any], ...] | None = None


def arm_summaries(tables: StudyTables) -> tuple[ArmSummary, ...]:
    """Return the confirmation of every arm, the baseline included, in the study's order.

    A target that was reached counts as a hit however the run ended: the clock stopped when it was reached.
    """
    metric = tables.study.metric
    rows = {arm.name: with_times_to_target(tables, confirm_rows(tables, arm.name)) for arm in tables.study.arms}
    summaries = {name: _summary(name, of_arm, metric) for name, of_arm in rows.items()}
    overheads = {
        name: statistics._relative_median_change(*column_pairs(tables, name, "wall_s", per="epochs_run"))
        for name in rows
    }
    return tuple(
        replace(
            s,
            overhead=estimate.value if (estimate := overheads[s.arm]) is not None else None,
            overhead_interval=estimate.interval if estimate is not None else None,
            epochs_saved=_epochs_saved(rows[s.arm], rows[tables.study.baseline], tables.study.confirm.epochs),
        )
        if s.arm != tables.study.baseline
        else s
        for s in summaries.values()
    )


def _epochs_saved(arm: list[Row], baseline: list[Row], budget: int) -> TimeSaved | None:
    """Compare the seeds that have ended in both arms; a lost run is tried again."""
    left, right = ({row["seed"]: row["epochs_to_target"] for row in rows if has_ended(row)} for rows in (arm, baseline))
    both = [seed for seed in left if seed in right]
    return time_saved([left[seed] for seed in both], [right[seed] for seed in both], budget)


def _summary(arm: str, rows: list[Row], metric: Metric) -> ArmSummary:
    values = np.array([value for row in rows if (value := final_value(row, metric)) is not None], dtype=np.float64)
    # Resampled as gains: a mirrored metric then has the mirrored interval.
    resampled = statistics.bootstrap_interval(metric.sign * values)
    timed = metric.target is not None
    ended = [row for row in rows if timed and environment_error(row["error"]) is None]
    seconds = [row["seconds_to_target"] for row in ended]
    waits = [row["circuit_wait_s_to_target"] for row in ended]
    free = [None if s is None else max(0.0, s - wait) for s, wait in zip(seconds, waits, strict=True)]
    # All runs of an arm are at the point that its search chose.
    chosen: Row = rows[0] if rows else {}
    return ArmSummary(
        arm=arm,
        n_runs=len(rows),
        n_completed=sum(row["ending"] == Ending.COMPLETED for row in rows),
        n_null=len(rows) - len(values),
        endings=dict(Counter(row["ending"] for row in rows)),
        iqm=float(statistics.interquartile_mean(values)) if len(values) else None,
        iqm_interval=resampled and resampled.times(metric.sign),
        epochs_to_target=median_time([row["epochs_to_target"] for row in ended]),
        epochs_saved=None,
        seconds_to_target=median_time(seconds),
        seconds_to_target_circuits_free=median_time(free),
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
        overhead_interval=None,
        train_loss=median(_column(rows, "mean_train_loss")),
        test_loss=median(_column(rows, "test_loss")),
        answers=_total(rows, "answers"),
        answers_right=_total(rows, "answers_right"),
        answers_without_number=_total(rows, "answers_without_number"),
        throughput=median_throughput(rows),
        optimizer=chosen.get("optimizer"),
        optimizer_settings=_settings(chosen.get("optimizer_settings")),
    )


def _settings(text: str | None) -> tuple[tuple[str, Any], ...] | None:
    """Return the settings of an optimizer by their path, without its names and those that are off."""
    if text is None:
        return None
    values = ((path, value) for path, value in leaves(parse_json(text)) if value is not None)
    return tuple((path, value) for path, value in values if path.rpartition(".")[2] != "name")


def _column(rows: list[Row], name: str) -> list[Any]:
    return [row[name] for row in rows if row[name] is not None]


def _total(rows: list[Row], name: str) -> int | None:
    values = _column(rows, name)
    return sum(values) if values else None
