"""One trial of a study run again from its row alone, and compared with it bit for bit.

In: a study's results and the trial's name, or as much of its beginning as names no other. Out: a `Replay`, with
everything that came out otherwise but seconds and the words of an error. The study's folder is only read.
"""

from __future__ import annotations

import math
import os
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from qsgd_ray.circuits.memory import total_bytes
from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.config import Resources, Study, StudyError
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.connection import private_ray
from qsgd_ray.execution.preflight import require_runnable
from qsgd_ray.execution.train_group import RunContext, run_trials
from qsgd_ray.outcome import Ending, Measurement, Outcome
from qsgd_ray.paths import leaves
from qsgd_ray.results import Results
from qsgd_ray.results.schema import TIME_COLUMNS
from qsgd_ray.training.loop import Training, run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import make_workload

Row = dict[str, Any]
# A traceback tells where a trial ran, too.
NOT_COMPARED = {*TIME_COLUMNS, "error"}


@dataclass(frozen=True)
class Difference:
    """`epoch`: of the measurement, None for the trial's own row."""

    column: str
    epoch: int | None
    kept: Any
    now: Any


@dataclass(frozen=True)
class Replay:
    trial: Trial
    ending: Ending
    n_measurements: int
    parameters_sha256: str | None
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Kept:
    """A trial as its study's folder has it, and the record of the run that made it."""

    trial: Trial
    study: Study
    row: Row
    measurements: tuple[Row, ...]
    made_with: dict[str, Any]


@dataclass(frozen=True)
class StopAt:
    """Stops a trial after as many epochs as it had; travels to workers. None: it ended by itself."""

    epoch: int | None

    def __call__(self, _: Trial, measurement: Measurement) -> bool:
        """As `distributed.Report`."""
        return measurement.epoch == self.epoch


def kept_trial(results: Results, name: str) -> Kept:
    """The trial of this name, or of the one that begins so; StudyError where there is none, or there are several."""
    tables = results.all_tables()
    ids = [trial_id for trial_id in tables.trials["trial_id"].to_pylist() if trial_id.startswith(name)]
    if name in ids:
        ids = [name]
    if len(ids) != 1:
        allowed = f"one of {_some(ids)}" if ids else _some(sorted(tables.trials["trial_id"].to_pylist()))
        raise StudyError(f"TRIAL: got {name!r}; allowed: {allowed}")
    row, *_ = _of(tables.trials, ids[0])
    if row["trial"] is None:
        raise StudyError(f"TRIAL: got {name!r}, whose row does not tell all of it; allowed: rows of schema 7 and later")
    if row["ending"] == Ending.LOST:
        raise StudyError(f"TRIAL: got {name!r}, which was lost; allowed: a trial that ended")
    trial = Trial.model_validate_json(row["trial"])
    measurements = tuple(_of(tables.measurements, ids[0]))
    return Kept(trial, tables.study, row, measurements, _record_of(row, tables.provenance))


def _of(table: pa.Table, trial_id: str) -> list[Row]:
    rows: list[Row] = table.filter(pa.compute.equal(table["trial_id"], trial_id)).to_pylist()
    return rows


def _some(ids: list[str]) -> str:
    shown = ids[:5]
    return ", ".join(shown) + (f" and {len(ids) - len(shown)} more" if len(ids) > len(shown) else "") or "no trial yet"


def _record_of(row: Row, provenance: dict[str, Any]) -> dict[str, Any]:
    """The provenance of the run that the trial began in: the last one that began before it."""
    runs = [provenance, *provenance.get("resumed", [])]
    began = row["started_at"].isoformat() if row["started_at"] else ""
    before = [record for record in runs if record.get("started_at", "") <= began]
    return before[-1] if before else provenance


def replay(kept: Kept) -> Replay:
    """Run it again: with one worker in this process, with several on a private Ray."""
    study = _as_then(kept)
    require_runnable(study, "local")
    stop = StopAt(kept.row["epochs_run"] if kept.row["ending"] == Ending.STOPPED_EARLY else None)
    with tempfile.TemporaryDirectory(prefix="qsgd-ray-replay-") as folder:
        results = Results(Path(folder))
        results.open(study, {})
        if kept.trial.workers > 1:
            _on_workers(kept.trial, study, results, stop)
        else:
            _here(kept.trial, study.resources, results, stop)
        now = results.all_tables()
    (row,), measurements = now.trials.to_pylist(), now.measurements.to_pylist()
    return Replay(
        kept.trial,
        Ending(row["ending"]),
        len(measurements),
        row["parameters_sha256"],
        (*_differences(None, kept.row, row), *_in_measurements(kept.measurements, measurements)),
    )


def _as_then(kept: Kept) -> Study:
    """The study with the arithmetic of the trial, and with nothing that answers circuits but the workers themselves."""
    trial, resources = kept.trial, kept.study.resources
    arithmetic = {
        "sharding": trial.sharding or resources.sharding,
        "circuit_engine": trial.circuit_engine or resources.circuit_engine,
    }
    alone = {"circuit_actors": None, "max_circuit_actors": None, "circuit_nodes": None}
    undisturbed = {"checkpoint_steps": None, "least_workers": None, "worker_nodes": None}
    changed = resources.model_copy(update=arithmetic | alone | undisturbed)
    return kept.study.model_copy(
        update={
            "arms": (trial.arm,),
            "baseline": trial.arm.name,
            "map": None,
            "claims": {},
            "workload": trial.workload,
            "resources": Resources.model_validate(changed.model_dump()),
        }
    )


def _here(trial: Trial, resources: Resources, results: Results, stop: StopAt) -> None:
    replica = Replica(device="cuda" if resources.gpus_per_worker > 0 else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    try:
        workload = make_workload(trial.workload, device=replica.device)
        circuits = make_backend(resources.circuit_engine, memory_bytes=total_bytes())
        results.write(trial, _outcome(trial, train(trial, workload, circuits, replica), stop))
    finally:
        torch.set_num_threads(threads)


def _outcome(trial: Trial, training: Training, stop: StopAt) -> Outcome:
    told: list[Measurement] = []

    def report(measurement: Measurement) -> bool:
        told.append(measurement)
        return stop(trial, measurement)

    try:
        return run(training, report)
    except Exception:  # the trial's edge, as where it was trained: a bug in it is its outcome
        return Outcome(Ending.FAILED, tuple(told), error=traceback.format_exc())


def _on_workers(trial: Trial, study: Study, results: Results, stop: StopAt) -> None:
    circuits = make_backend(study.resources.circuit_engine, memory_bytes=total_bytes())
    cpus = max(os.cpu_count() or 1, math.ceil(trial.workers * study.resources.cpus_per_worker))
    with private_ray(cpus) as cluster:
        run_trials([trial], RunContext(cluster, study.resources, circuits, results, stop, _nobody))


def _nobody(*_: object) -> None:
    """Is told how the trial ended."""


def _differences(epoch: int | None, kept: Row, now: Row) -> list[Difference]:
    return [
        Difference(column, epoch, kept.get(column), now.get(column))
        for column in dict.fromkeys([*kept, *now])
        if column not in NOT_COMPARED and not _same(kept.get(column), now.get(column))
    ]


def _same(kept: Any, now: Any) -> bool:
    """Every bit of it; a NaN is like another."""
    return bool(kept == now) or (isinstance(kept, float) and isinstance(now, float) and kept != kept and now != now)


def _in_measurements(kept: tuple[Row, ...], now: list[Row]) -> list[Difference]:
    left, right = ({row["epoch"]: row for row in rows} for rows in (kept, now))
    found: list[Difference] = []
    for epoch in sorted(left.keys() | right.keys()):
        if epoch in left and epoch in right:
            found += _differences(epoch, left[epoch], right[epoch])
        else:
            found.append(
                Difference("measurement", epoch, *("there" if epoch in side else None for side in (left, right)))
            )
    return found


def elsewhere(made_with: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What machine, versions and commit differ from those that a trial was made with, each as `name then, here now`."""
    names = ("qsgd_ray", "commit", "python", "packages", "hardware", "system")
    then, now = (dict(leaves({n: record[n] for n in names if n in record})) for record in (made_with, here))
    return [
        f"{name} {then[name]}, here {now[name]}"
        for name in then
        if name in now and then[name] != now[name] and name not in ("hardware.memory_bytes", "commit.changed")
    ]
