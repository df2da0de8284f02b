"""Pairs of runs as the claims measure them: a contrast's rows in, pairs by seed out; and columns of both arms."""

from __future__ import annotations

import json

from qsgd_ray.analysis._rows import Row, confirm_rows, has_ended
from qsgd_ray.analysis._target_rows import with_times_to_target
from qsgd_ray.config import Contrast
from qsgd_ray.config.claims import same_setting
from qsgd_ray.config.stages import Setting, baseline_setting
from qsgd_ray.results import StudyTables

RowPair = tuple[Row, Row]


def column_pairs(tables: StudyTables, arm: str, column: str, per: str | None = None) -> tuple[list[float], list[float]]:
    """Return a column of the arm and of the baseline, divided by another one, of the pairs in which both have it."""
    return columns_of(row_pairs(tables, Contrast(arm=arm)), column, per)


def columns_of(pairs: list[RowPair], column: str, per: str | None = None) -> tuple[list[float], list[float]]:
    """Return a column of both sides, divided by another one, of the pairs in which both have it."""
    values = [
        [float(row[column]) / (float(row[per]) if per else 1.0) for row in rows]
        for rows in pairs
        if all(row[column] is not None and (per is None or row[per]) for row in rows)
    ]
    return [left for left, _ in values], [right for _, right in values]


def both_sides(tables: StudyTables, contrast: Contrast) -> tuple[list[Row], list[Row]]:
    """Return the rows of either side of a contrast, at most one a seed: of the confirmation, or of cells of the map."""
    study = tables.study
    against = study.baseline if contrast.against is None else contrast.against
    if contrast.at is None:
        left, right = (confirm_rows(tables, name) for name in (contrast.arm, against))
        return with_times_to_target(tables, left), with_times_to_target(tables, right)
    left = _cell(tables, contrast.arm, contrast.at)
    if contrast.against_at is not None:
        return left, _cell(tables, contrast.arm, contrast.against_at)
    return left, _cell(tables, study.baseline, baseline_setting(contrast.at))


def row_pairs(tables: StudyTables, contrast: Contrast) -> list[RowPair]:
    """Return the rows of the seeds that have ended on both sides of a contrast."""
    left, right = ({row["seed"]: row for row in rows if has_ended(row)} for rows in both_sides(tables, contrast))
    return [(left[seed], right[seed]) for seed in left if seed in right]


def _cell(tables: StudyTables, arm: str, setting: Setting) -> list[Row]:
    rows = tables.rows("map", arm)
    return with_times_to_target(tables, [row for row in rows if same_setting(json.loads(row["setting"]), setting)])
