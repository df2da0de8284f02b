"""The status of a study as another process sees it: its rows and its lease in, a JSON tree out; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from qsgd_ray.analysis.budget import budget_entry, budget_status, joint_budget_entry
from qsgd_ray.analysis.joint import judge_jointly
from qsgd_ray.analysis.status import last_end, stage_statuses
from qsgd_ray.analysis.verdict import judge, judge_together
from qsgd_ray.config import Study, StudyError
from qsgd_ray.limits.rows import LimitsResults, is_limits
from qsgd_ray.results import Results
from qsgd_ray.results.whole import WholeResults, is_whole
from qsgd_ray.storage import Holder, Lease, Storage, StorageError, holder

STATUS_FORMAT, STATUS_VERSION = "qsgd-ray status", 2


def study_status(storage: Storage, *, watch: bool = False) -> dict[str, Any]:
    """Return how far a study is, and which process runs it.

    Args:
        storage: its results.
        watch: watch a process of another machine until it renews its lease, for 12 s at most; False: its state stays
            `unconfirmed`.

    Returns:
        `study`, `question`, `state`, `holder`, `stage` (the first that is not complete; None: all are), `ended` and
        `planned` trials, `stages` (a list by stage and arm), `last_end`, `budget` (limits and spending; None: it has no
        budget), `verdicts` by arm, and `notes`. The state is `running`, `finished`, `stopped` (no process runs it, and
        trials are missing) or `unconfirmed`. Of a study of several workloads the verdicts are the joint ones, each of
        the `stages` has its `workload`, and `workloads` has the verdicts of each.

    Raises:
        StudyError: no study was run into it, or a file is broken; one line.
        StorageError: the store does not answer.
    """
    # The lease first: where the study ends in between, its last rows are read, and it is not called stopped.
    process = holder(storage, 1.2 * Lease.beat_s if watch else 0.0)
    if is_whole(storage):
        return _whole_status(WholeResults(storage), process)
    tables = Results(storage).tables(measurements=False)
    verdicts = {verdict.arm: verdict.verdict.value for verdict in judge(tables)}
    stages = [asdict(status) for status in stage_statuses(tables)]
    budget = budget_entry(budget_status(tables))
    return _tree(tables.study, process, stages, last_end(tables), budget) | {
        "verdicts": verdicts,
        "notes": tables.notes,
    }


def _whole_status(results: WholeResults, process: Holder | None) -> dict[str, Any]:
    """Return the status of a study of several workloads: the stages of all parts, and the joint verdicts."""
    study = results.study()
    parts = results.tables_of_parts(study, measurements=False)
    stages = [
        {"workload": name} | asdict(status) for name, tables in parts.items() for status in stage_statuses(tables)
    ]
    ends = [end for tables in parts.values() if (end := last_end(tables)) is not None]
    notes = [f"{name}: {note}" for name, tables in parts.items() for note in tables.notes]
    together = judge_together([*parts.values()])
    by_workload = {
        name: {verdict.arm: verdict.verdict.value for verdict in verdicts}
        for name, verdicts in zip(parts, together, strict=True)
    }
    budget = joint_budget_entry(study.budget, map(budget_status, parts.values()))
    return _tree(study, process, stages, max(ends, default=None), budget) | {
        "verdicts": {verdict.arm: verdict.verdict.value for verdict in judge_jointly(study, parts)},
        "notes": [*results.joined(parts, study).notes, *notes],
        "workloads": by_workload,
    }


def _tree(
    study: Study,
    process: Holder | None,
    stages: Sequence[dict[str, Any]],
    ended_at: datetime | None,
    budget: dict[str, Any] | None,
) -> dict[str, Any]:
    missing = [status["stage"] for status in stages if status["ended"] < status["planned"]]
    return {
        "study": study.name,
        "question": study.question,
        "state": _state(process, finished=not missing),
        "holder": None if process is None else asdict(process),
        "stage": missing[0] if missing else None,
        "ended": sum(min(status["ended"], status["planned"]) for status in stages),
        "planned": sum(status["planned"] for status in stages),
        "stages": [*stages],
        "last_end": None if ended_at is None else ended_at.isoformat(timespec="seconds"),
        "budget": budget,
    }


def _state(process: Holder | None, finished: bool) -> str:
    if process is not None and process.lives:
        return "running"
    if finished:
        return "finished"
    return "stopped" if process is None or process.lives is False else "unconfirmed"


def studies_below(storage: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the status of every study right below a storage, or of the one in it, by name.

    Of a storage with a study of several workloads it is that one, and each of its parts.

    A study of limits has the state `limits`, with its question and the number of sizes measured. One that cannot be
    read has the state `broken`, with the reason as its note, and ends nothing.

    Args:
        storage: a folder of results, as `--storage` names it, or one study's own.

    Raises:
        StorageError: the store does not answer.
    """
    if _holds(storage):
        yield str(storage), _listed(storage)
        if not _has_parts(storage):
            return
    for name in storage.folders():
        if _holds(place := storage / name):
            yield str(place), _listed(place)


def _holds(storage: Storage) -> bool:
    return bool({"study.json", "limits.json"} & {*storage.names("", ".json")})


def _has_parts(storage: Storage) -> bool:
    try:
        return is_whole(storage)
    except StudyError:  # a broken one has been listed as such
        return False


def _listed(storage: Storage) -> dict[str, Any]:
    name = str(storage.location()).rstrip("/").rpartition("/")[2]
    try:
        if is_limits(storage):
            tables = LimitsResults(storage).read()
            state, question, ended = "limits", tables.limits.question, tables.sizes.num_rows
            return _without_rows(tables.limits.name, state, question) | {"ended": ended}
        return study_status(storage)
    except (StudyError, StorageError) as error:
        return _without_rows(name, "broken", None) | {"notes": [str(error)]}


def _without_rows(study: str, state: str, question: str | None) -> dict[str, Any]:
    return {
        "study": study,
        "question": question,
        "state": state,
        "holder": None,
        "stage": None,
        "ended": None,
        "planned": None,
        "stages": [],
        "last_end": None,
        "budget": None,
        "verdicts": {},
        "notes": [],
    }
