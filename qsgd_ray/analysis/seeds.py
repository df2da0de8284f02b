"""Results by seed: the confirmation's rows in; values, differences and times to target of every arm out."""

from __future__ import annotations

from dataclasses import dataclass

from qsgd_ray.analysis._rows import Row, confirm_rows, final_value
from qsgd_ray.analysis._target_rows import with_times_to_target
from qsgd_ray.analysis.metric import factor_of
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class TargetClock:
    """Times at which the runs of an arm reached the target, by one clock; none where there is no target.

    Attributes:
        hits: by seed, the time at which the run reached the target, >= 0.
        misses: by seed, the time at which a run ended that did not: its true time is later, or never (censored).
    """

    hits: dict[int, float]
    misses: dict[int, float]


@dataclass(frozen=True)
class SeedResults:
    """One arm's confirmation, seed by seed.

    Attributes:
        arm: its name.
        values: by seed, the metric of test data, of the runs that have one; as it is shown, a share in percent.
        differences: by seed, the value less that of the baseline's run, of the seeds at which both have one; of a share
            in percentage points.
        epochs: clock in epochs.
        seconds: clock in seconds of training.
        seconds_without_circuits: the same less the wait for circuits.
        n_unmeasured: runs that ended before their first measurement.
    """

    arm: str
    values: dict[int, float]
    differences: dict[int, float]
    epochs: TargetClock
    seconds: TargetClock
    seconds_without_circuits: TargetClock
    n_unmeasured: int


def seed_results(tables: StudyTables) -> tuple[SeedResults, ...]:
    """Return the results by seed of every arm, the baseline included, in the study's order."""
    metric = tables.study.metric
    factor = factor_of(metric)
    rows = {arm.name: with_times_to_target(tables, confirm_rows(tables, arm.name)) for arm in tables.study.arms}
    values = {
        arm: {row["seed"]: factor * value for row in arm_rows if (value := final_value(row, metric)) is not None}
        for arm, arm_rows in rows.items()
    }
    baseline = values[tables.study.baseline]
    timed = rows if metric.target is not None else {arm: [] for arm in rows}
    return tuple(
        SeedResults(
            arm=arm,
            values=values[arm],
            differences={seed: value - baseline[seed] for seed, value in values[arm].items() if seed in baseline},
            epochs=_clock(timed[arm], "epochs_to_target", "epochs_run", None),
            seconds=_clock(timed[arm], "seconds_to_target", "wall_s", None),
            seconds_without_circuits=_clock(timed[arm], "seconds_to_target", "wall_s", "circuit_wait_s"),
            n_unmeasured=sum(not _is_hit(row) and not _is_miss(row) for row in arm_rows),
        )
        for arm, arm_rows in rows.items()
    )


def _clock(rows: list[Row], at_target: str, at_end: str, wait: str | None) -> TargetClock:
    """Read a clock from two columns, one for hits and one for misses, less the wait that is not to count."""
    hits = {row["seed"]: _time(row, at_target, wait and f"{wait}_to_target") for row in rows if _is_hit(row)}
    return TargetClock(hits, {row["seed"]: _time(row, at_end, wait) for row in rows if _is_miss(row)})


def _is_hit(row: Row) -> bool:
    return row["epochs_to_target"] is not None


def _is_miss(row: Row) -> bool:
    return not _is_hit(row) and bool(row["epochs_run"])


def _time(row: Row, column: str, wait: str | None) -> float:
    return float(row[column]) - (float(row[wait]) if wait else 0.0)
