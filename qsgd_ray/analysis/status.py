"""The status of a study: its rows in; the trials that have ended and are planned, by stage and arm, out."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from qsgd_ray.config import STAGES
from qsgd_ray.outcome import REPEATED
from qsgd_ray.results import StudyTables


@dataclass(frozen=True)
class StageStatus:
    """The trials of one stage and arm.

    Attributes:
        stage: `search`, `confirm` or `map`.
        arm: its name.
        planned: trials that the study plans, >= 1.
        ended: trials that have ended; one that was lost or lacked something has not, as it is run again.
        endings: trials with a row by ending, those that are run again included.
    """

    stage: str
    arm: str
    planned: int
    ended: int
    endings: dict[str, int]


def stage_statuses(tables: StudyTables) -> tuple[StageStatus, ...]:
    """Return the status of every stage and arm that has planned trials, in the order in which they run."""
    statuses = []
    for stage in STAGES:
        for arm in tables.study.arms:
            if planned := tables.study.planned(stage, arm):
                endings = Counter(row["ending"] for row in tables.rows(stage, arm.name))
                ended = sum(count for ending, count in endings.items() if ending not in REPEATED)
                statuses.append(StageStatus(stage, arm.name, planned, ended, dict(endings)))
    return tuple(statuses)


def is_finished(tables: StudyTables) -> bool:
    """Return True where every planned trial has ended; one that was lost or lacked something is to be run again."""
    return all(status.ended >= status.planned for status in stage_statuses(tables))


def last_end(tables: StudyTables) -> datetime | None:
    """Return when the last trial ended, in UTC; None where no row says."""
    ends = []
    columns = (tables.trials[name].to_pylist() for name in ("started_at", "elapsed_s"))
    for start, seconds in zip(*columns, strict=True):
        if start is not None and seconds is not None:
            with suppress(OverflowError):  # a row of unknown origin
                ends.append(start + timedelta(seconds=seconds))
    return max(ends, default=None)
