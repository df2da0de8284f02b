"""Pairs of runs as the claims measure them: columns of both arms, and times to target with misses at their budget."""

from __future__ import annotations

from collections.abc import Callable

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._rows import Row, confirm_rows, final_value, has_ended
from qsgd_ray.analysis.statistics import Estimate
from qsgd_ray.results import StudyTables


def column_pairs(tables: StudyTables, arm: str, column: str, per: str | None = None) -> tuple[list[float], list[float]]:
    """Return a column of the arm and of the baseline, divided by another one, of the pairs in which both have it."""
    pairs = [
        [float(row[column]) / (float(row[per]) if per else 1.0) for row in rows]
        for rows in _paired_rows(tables, arm)
        if all(row[column] is not None and (per is None or row[per]) for row in rows)
    ]
    return [of_arm for of_arm, _ in pairs], [of_baseline for _, of_baseline in pairs]


def accuracy_pairs(tables: StudyTables, arm: str) -> tuple[list[float], list[float]]:
    """Return test accuracies of the arm and of the baseline, fractions of one, of the pairs in which both have one."""
    results = [(final_value(of_arm), final_value(of_baseline)) for of_arm, of_baseline in _paired_rows(tables, arm)]
    pairs = [(left, right) for left, right in results if left is not None and right is not None]
    return [left for left, _ in pairs], [right for _, right in pairs]


def change_of_time(
    tables: StudyTables, arm: str, column: str, budget: Callable[[Row], float]
) -> tuple[Estimate | None, int]:
    """Return the change of the mean time to target against the baseline's, and the pairs behind it.

    A miss counts with its run's budget (a restricted mean). The change is None where no run reached the target.
    """
    pairs = [rows for rows in _paired_rows(tables, arm) if all(row["wall_s"] is not None for row in rows)]
    if not any(row[column] is not None for rows in pairs for row in rows):
        return None, len(pairs)
    times = [[row[column] if row[column] is not None else budget(row) for row in rows] for rows in pairs]
    change = statistics.relative_change([of_arm for of_arm, _ in times], [of_baseline for _, of_baseline in times])
    return change, len(pairs)


def change_of_epochs(tables: StudyTables, arm: str) -> tuple[Estimate | None, int]:
    """Return `change_of_time` in epochs; a miss counts with the epochs that its run was planned for."""
    return change_of_time(tables, arm, "epochs_to_target", lambda row: float(row["epochs_planned"]))


def rows_of_both(tables: StudyTables, arm: str) -> tuple[list[Row], list[Row]]:
    """Return the confirmation's rows of the arm and of the baseline."""
    return confirm_rows(tables, arm), confirm_rows(tables, tables.study.baseline)


def _paired_rows(tables: StudyTables, arm: str) -> list[tuple[Row, Row]]:
    """Return the rows of the seeds that have ended in both arms."""
    of_arm, of_baseline = ({row["seed"]: row for row in rows if has_ended(row)} for rows in rows_of_both(tables, arm))
    return [(of_arm[seed], of_baseline[seed]) for seed in of_arm if seed in of_baseline]
