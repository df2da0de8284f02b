"""Run one trial of a study again from its row alone, and compare the two bit for bit.

Seconds and the words of an error are not compared. The study's folder is only read.
"""

from __future__ import annotations

import math
import os
import tempfile
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from qsgd_ray.circuits.memory import total_bytes
from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.config import Resources, StoredTask, Study, StudyError
from qsgd_ray.config.optimizer_class import is_known, module_of
from qsgd_ray.config.optimizer_version import version_of
from qsgd_ray.config.own_task import code_of_kind
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.connection import private_ray
from qsgd_ray.execution.preflight import require_runnable
from qsgd_ray.execution.train_group import RunContext, run_trials
from qsgd_ray.execution.user_modules import runtime_env_of
from qsgd_ray.outcome import REPEATED, Ending, Measurement, Outcome
from qsgd_ray.paths import leaves
from qsgd_ray.results import Results
from qsgd_ray.results.schema import TIME_COLUMNS
from qsgd_ray.results.tables import trial_of
from qsgd_ray.training.loop import Training, run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import make_workload

Row = dict[str, Any]
# A traceback names files of the machine, too.
_NOT_COMPARED = {*TIME_COLUMNS, "error"}


@dataclass(frozen=True)
class Difference:
    """A value that came out otherwise.

    Attributes:
        column: its column of the rows; "measurement" where one side lacks the whole measurement.
        epoch: the epoch of the measurement; None: the value stands in the trial's own row.
        stored: what the row says; "there" or None of a whole measurement.
        replayed: what came out now.
    """

    column: str
    epoch: int | None
    stored: Any
    replayed: Any


@dataclass(frozen=True)
class Replay:
    """The outcome of a trial that was run again.

    Attributes:
        trial: the trial.
        ending: how it ended now.
        n_measurements: the number of epochs that it was measured after.
        parameters_sha256: hash of the parameters at its end; None where it has none.
        differences: the values that came out otherwise; empty: all bits are the same.
    """

    trial: Trial
    ending: Ending
    n_measurements: int
    parameters_sha256: str | None
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class StoredTrial:
    """A trial as its study's folder has it.

    Attributes:
        trial: the trial.
        study: the study as it is now.
        row: its row.
        measurements: its measurements, by epoch.
        made_with: versions, commit and hardware of the run that made it, as a JSON tree.
    """

    trial: Trial
    study: Study
    row: Row
    measurements: tuple[Row, ...]
    made_with: dict[str, Any]


@dataclass(frozen=True)
class _StopAt:
    """Stop a trial after as many epochs as it had; None: it ends by itself. Can be sent to workers."""

    epoch: int | None

    def __call__(self, _: Trial, measurement: Measurement) -> bool:
        """Return True after that epoch."""
        return measurement.epoch == self.epoch


def stored_trial(results: Results, name: str) -> StoredTrial:
    """Return a trial of a study by its name.

    Args:
        results: the study's results.
        name: the trial's id, or a beginning of it that no other trial has.

    Raises:
        StudyError: no trial or several have this name, it was lost, or its row is of a schema below 7.
    """
    tables = results.all_tables()
    ids = [trial_id for trial_id in tables.trials["trial_id"].to_pylist() if trial_id.startswith(name)]
    if name in ids:
        ids = [name]
    if len(ids) != 1:
        allowed = f"one of {_names(ids)}" if ids else _names(sorted(tables.trials["trial_id"].to_pylist()))
        raise StudyError(f"TRIAL: got {name!r}; allowed: {allowed}")
    row, *_ = _rows_of(tables.trials, ids[0])
    if row["trial"] is None:
        raise StudyError(f"TRIAL: got {name!r}, whose row does not tell all of it; allowed: rows of schema 7 and later")
    if row["ending"] in REPEATED:
        raise StudyError(f"TRIAL: got {name!r}, which is {row['ending']}; allowed: a trial that ended by itself")
    trial = trial_of(row)
    measurements = tuple(_rows_of(tables.measurements, ids[0]))
    return StoredTrial(trial, tables.study, row, measurements, _record_of(row, tables.provenance))


def _rows_of(table: pa.Table, trial_id: str) -> list[Row]:
    rows: list[Row] = table.filter(pa.compute.equal(table["trial_id"], trial_id)).to_pylist()
    return rows


def _names(ids: list[str]) -> str:
    shown = ids[:5]
    return ", ".join(shown) + (f" and {len(ids) - len(shown)} more" if len(ids) > len(shown) else "") or "no trial yet"


def _record_of(row: Row, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the provenance of the run that the trial began in: the last one that began before it."""
    runs = [provenance, *provenance.get("resumed", [])]
    began = row["started_at"].isoformat() if row["started_at"] else ""
    before = [record for record in runs if record.get("started_at", "") <= began]
    return before[-1] if before else provenance


def replay(stored: StoredTrial, trusted: Collection[str] = ()) -> Replay:
    """Run a trial again, with one worker in this process, with several on a private Ray, and compare it with its row.

    Args:
        stored: the trial.
        trusted: names of packages whose optimizers the row may name, beside torch, schedulefree, pytorch_optimizer and
            heavyball: a results folder may come from anywhere, and to make an optimizer imports its package.

    Raises:
        StudyError: this machine cannot run it, its workload's class has other code here, or its optimizer is of a
            package that is not trusted.

    Example:
        >>> replay(stored_trial(Results("results/quick"), "confirm-adamw-s101")).differences  # doctest: +SKIP
        ()
    """
    _require_same_workload(stored)
    for name in stored.trial.arm.optimizer_names:
        if not _is_trusted(name, trusted):
            raise StudyError(
                f"TRIAL: got {stored.trial.trial_id!r}, whose row names the optimizer {name}; allowed: one of torch, "
                f"schedulefree, pytorch_optimizer or heavyball, or with --trust {module_of(name)}, which imports it"
            )
    study = _study_then(stored)
    require_runnable(study, "local")
    stop = _StopAt(stored.row["epochs_run"] if stored.row["ending"] == Ending.STOPPED_EARLY else None)
    with tempfile.TemporaryDirectory(prefix="qsgd-ray-replay-") as folder:
        results = Results(Path(folder))
        results.open(study, {})
        if stored.trial.workers > 1:
            _on_workers(stored.trial, study, results, stop)
        else:
            _in_this_process(stored.trial, study.resources, results, stop)
        now = results.all_tables()
    (row,), measurements = now.trials.to_pylist(), now.measurements.to_pylist()
    return Replay(
        stored.trial,
        Ending(row["ending"]),
        len(measurements),
        row["parameters_sha256"],
        (*_differences(None, stored.row, row), *_measurement_differences(stored.measurements, measurements)),
    )


def _is_trusted(optimizer: str, trusted: Collection[str]) -> bool:
    return is_known(optimizer) or module_of(optimizer) in trusted


def _require_same_workload(stored: StoredTrial) -> None:
    """Raise StudyError where the class of the trial's workload is loaded here with other code."""
    task = stored.trial.workload
    if isinstance(task, StoredTask) and (here := code_of_kind(task.kind)) is not None:
        raise StudyError(
            f"TRIAL: got {stored.trial.trial_id!r}, whose workload {task.kind} had code {task.code} and has {here} "
            "here; allowed: the class as it was then, and its packages in the same versions"
        )


def _study_then(stored: StoredTrial) -> Study:
    """Return the study with the trial's arithmetic, and with circuits simulated by the workers themselves."""
    trial = stored.trial
    of_arm = next((arm.resources for arm in stored.study.arms if arm.name == trial.arm.name), None)
    resources = stored.study.resources.with_worker(of_arm)
    arithmetic = {
        "sharding": trial.sharding or resources.sharding,
        "circuit_engine": trial.circuit_engine or resources.circuit_engine,
    }
    alone = {"circuit_actors": None, "max_circuit_actors": None, "circuit_nodes": None}
    undisturbed = {"checkpoint_steps": None, "least_workers": None, "worker_nodes": None, "memory_gb_per_worker": None}
    changed = resources.model_copy(update=arithmetic | alone | undisturbed)
    return stored.study.model_copy(
        update={
            "arms": (trial.arm,),
            "baseline": trial.arm.name,
            "map": None,
            "claims": (),
            "ladder": None,
            "budget": None,
            "workload": trial.workload,
            "resources": Resources.model_validate(changed.model_dump()),
        }
    )


def _in_this_process(trial: Trial, resources: Resources, results: Results, stop: _StopAt) -> None:
    replica = Replica(device="cuda" if resources.gpus_per_worker > 0 else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    try:
        workload = make_workload(trial.workload, device=replica.device)
        circuits = make_backend(resources.circuit_engine, memory_bytes=total_bytes())
        results.write(trial, _outcome(trial, train(trial, workload, circuits, replica), stop))
    finally:
        torch.set_num_threads(threads)


def _outcome(trial: Trial, training: Training, stop: _StopAt) -> Outcome:
    measurements: list[Measurement] = []

    def report(measurement: Measurement) -> bool:
        measurements.append(measurement)
        return stop(trial, measurement)

    try:
        return run(training, report)
    except Exception:  # the trial's edge, as where it was trained: a bug in it is its outcome
        return Outcome(Ending.FAILED, tuple(measurements), error=traceback.format_exc())


def _on_workers(trial: Trial, study: Study, results: Results, stop: _StopAt) -> None:
    circuits = make_backend(study.resources.circuit_engine, memory_bytes=total_bytes())
    cpus = max(os.cpu_count() or 1, math.ceil(trial.workers * study.resources.cpus_per_worker))
    with runtime_env_of(study) as runtime_env, private_ray(cpus, runtime_env=runtime_env) as cluster:
        run_trials([trial], RunContext(cluster, study.resources, circuits, results, stop, _ignore))


def _ignore(*_: object) -> None:
    """Do nothing at the end of the trial; its row says how it ended."""


def _differences(epoch: int | None, stored: Row, replayed: Row) -> list[Difference]:
    return [
        Difference(column, epoch, stored.get(column), replayed.get(column))
        for column in dict.fromkeys([*stored, *replayed])
        if column not in _NOT_COMPARED and not _same(stored.get(column), replayed.get(column))
    ]


def _same(stored: Any, replayed: Any) -> bool:
    """Return True where every bit is the same; one NaN is like another."""
    return bool(stored == replayed) or (
        isinstance(stored, float) and isinstance(replayed, float) and stored != stored and replayed != replayed
    )


def _measurement_differences(stored: tuple[Row, ...], replayed: list[Row]) -> list[Difference]:
    left, right = ({row["epoch"]: row for row in rows} for rows in (stored, replayed))
    differences: list[Difference] = []
    for epoch in sorted(left.keys() | right.keys()):
        if epoch in left and epoch in right:
            differences += _differences(epoch, left[epoch], right[epoch])
        else:
            differences.append(
                Difference("measurement", epoch, *("there" if epoch in side else None for side in (left, right)))
            )
    return differences


def optimizer_differences(stored: StoredTrial, trusted: Collection[str] = ()) -> list[str]:
    """Return the optimizers of a trial that come from elsewhere here, each as `name then, here now`.

    A class in a file is told by the hash of its code, an installed one by its package and version.

    Args:
        stored: the trial.
        trusted: as `replay` takes it; what is not trusted is not imported, and left out.
    """
    optimizer = stored.trial.arm.optimizer
    ones = [] if optimizer is None else [one for _, member in optimizer.members for one in (member, *member.inner)]
    then = {one.name: one.version for one in ones if one.version is not None and _is_trusted(one.name, trusted)}
    here = {name: version_of(name) or "not there" for name in then}
    return [f"{name} {then[name]}, here {here[name]}" for name in then if here[name] != then[name]]


def environment_differences(made_with: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return what of machine, versions and commit differs, each as `name then, here now`.

    Args:
        made_with: provenance of the run that made a trial, a JSON tree.
        here: provenance of a run on this machine.
    """
    names = ("qsgd_ray", "commit", "python", "packages", "hardware", "system")
    then, now = (dict(leaves({n: record[n] for n in names if n in record})) for record in (made_with, here))
    return [
        f"{name} {then[name]}, here {now[name]}"
        for name in then
        if name in now and then[name] != now[name] and name not in ("hardware.memory_bytes", "commit.changed")
    ]
