"""Results by seed: the confirmation's rows in; accuracies, differences and times to target of every arm out."""

from __future__ import annotations

from dataclasses import dataclass

from qsgd_ray.analysis._rows import Row, confirm_rows, final_value
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class TargetClock:
    """Times at which the runs of an arm reached the target accuracy, by one clock.

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
        accuracy: test accuracy by seed, a fraction of one, of the runs that have one.
        difference_points: percentage points of test accuracy above the baseline's run of the same seed, of the seeds
            at which both have one.
        epochs: clock in epochs.
        seconds: clock in seconds of training.
        seconds_without_circuits: the same less the wait for circuits.
        n_unmeasured: runs that ended before their first measurement.
    """

    arm: str
    accuracy: dict[int, float]
    difference_points: dict[int, float]
    epochs: TargetClock
    seconds: TargetClock
    seconds_without_circuits: TargetClock
    n_unmeasured: int


def seed_results(tables: StudyTables) -> tuple[SeedResults, ...]:
    """Return the results by seed of every arm, the baseline included, in the study's order."""
    rows = {arm.name: confirm_rows(tables, arm.name) for arm in tables.study.arms}
    accuracy = {
        arm: {row["seed"]: value for row in arm_rows if (value := final_value(row)) is not None}
        for arm, arm_rows in rows.items()
    }
    baseline = accuracy[tables.study.baseline]
    return tuple(
        SeedResults(
            arm=arm,
            accuracy=accuracy[arm],
            difference_points={
                seed: 100 * value - 100 * baseline[seed] for seed, value in accuracy[arm].items() if seed in baseline
            },
            epochs=_clock(arm_rows, "epochs_to_target", "epochs_run", None),
            seconds=_clock(arm_rows, "seconds_to_target", "wall_s", None),
            seconds_without_circuits=_clock(arm_rows, "seconds_to_target", "wall_s", "circuit_wait_s"),
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
