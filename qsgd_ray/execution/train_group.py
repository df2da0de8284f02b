"""Run the training loop on groups of Ray Train workers: trials in, rows in the study's folder out.

One fit carries a batch of trials one after the other: starting a group of workers takes longer than a small trial. Each
trial's rows are in place before the next one begins, so a fit that dies costs the trial it was at, and no other.
"""

from __future__ import annotations

import math
import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import ray.train
import torch
import torch.distributed as dist
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError
from torch.distributed import ProcessGroup

from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.circuits.errors import CircuitsLost
from qsgd_ray.config import Resources
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution._one_node_train import OneNodeTorchConfig, PrivateTrainer
from qsgd_ray.execution._trial_clock import TrialClock
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.start_gate import StartGate
from qsgd_ray.outcome import REPEATED, Ending, Measurement, Outcome, failure_ending
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.results import Results
from qsgd_ray.storage import StorageError
from qsgd_ray.training.checkpoint_index import WRITE_TIMEOUT_S, newest_step, remove_checkpoints
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import make_workload

if TYPE_CHECKING:
    from qsgd_ray.training.checkpoints import Checkpoints

# A group whose processes die is started again this often before its trial is given up as lost.
ATTEMPTS = 3
# A replica raises as soon as another one's connection breaks. Ray reports a death a second later or so, on a busy
# machine several, and the first of the two decides how the group ended: lost, or failed by its own code.
_DEATH_REPORT_S = 10.0
# How often the controller of a fit asks its workers how they are. A fit of seconds ends sooner where it asks often; a
# step of a second is disturbed by every question (docs/findings.md, 2026-11-24), so there Ray's own interval does.
_LONG_POLL_S, _SHORT_POLL_S = 2.0, 0.2
_POLLS = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
# Beyond the longest wait for circuits.
_PROCESS_GROUP_TIMEOUT_S = 300

# Called with each measurement of each trial, on rank 0; returns True to stop that trial. Is pickled.
Report = Callable[[Trial, Measurement], bool]
# Called when a trial has ended, on rank 0 or on the driver, with its error. Is pickled.
Ended = Callable[[Trial, Ending, str | None], None]


class _TrialError(RuntimeError):
    """A trial raised on a worker: its traceback as text, and what was measured before; survives the way to the driver.

    `lost`: what it needed was gone, its own code is not to blame.
    """

    def __init__(
        self,
        text: str,
        lost: bool = False,
        measurements: tuple[Measurement, ...] = (),
        started_at: datetime | None = None,
    ) -> None:
        super().__init__(text, lost, measurements, started_at)
        self.text, self.lost, self.measurements, self.started_at = text, lost, measurements, started_at

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class RunContext:
    """The surroundings that all trials of a study share.

    Attributes:
        cluster: the Ray cluster.
        resources: CPUs, GPUs and actors, as the study asks for them.
        circuits: simulates circuits. None: no arm needs any, or every worker simulates for itself.
        results: where rows and checkpoints go.
        report: called with each measurement; returns True to stop the trial.
        ended: called with each ending, and with the error where there is one.
        by_arm: the resources of the arms that have others.
        gate: closed once the study's budget is spent. None: it has no budget.
    """

    cluster: Cluster
    resources: Resources
    circuits: CircuitBackend | None
    results: Results
    report: Report
    ended: Ended
    by_arm: Mapping[str, Resources] = field(default_factory=dict)
    gate: StartGate | None = None

    def for_arm(self, name: str) -> RunContext:
        """Return the surroundings of an arm's trials: these, with the arm's resources."""
        return replace(self, resources=self.by_arm[name], by_arm={}) if name in self.by_arm else self

    def may_start(self) -> bool:
        """Return True where a trial may start."""
        return self.gate is None or self.gate.is_open()


def run_trials(trials: list[Trial], context: RunContext, trials_per_fit: int | None = None) -> None:
    """Give every trial its row. Those that have one are left alone.

    A trial whose code raised is `failed`, and the others go on. One whose processes or circuits were lost is repeated,
    `ATTEMPTS` times at most without a new checkpoint, then it is `lost`. Once the gate is closed no trial starts, and
    those that have not are left without a row.

    Args:
        trials: all use the same number of workers.
        context: what the trials share.
        trials_per_fit: so many trials at most one group of workers takes. None: all.
    """
    given_up: set[str] = set()
    deaths: Counter[str] = Counter()
    steps: dict[str, int] = {}
    while waiting := [t for t in trials if t.trial_id not in given_up and not context.results.has(t.trial_id)]:
        if not context.may_start():
            return
        clock = TrialClock()
        try:
            _fit(_with_equal_resources(waiting, context)[:trials_per_fit], context.for_arm(waiting[0].arm.name))
        except TrainingFailedError as error:
            culprit = next((t for t in waiting if not context.results.has(t.trial_id)), None)
            if culprit is None:
                continue
            outcome, started_at = _ended_by(error)
            if (step := newest_step(context.results.storage, culprit.trial_id)) > steps.get(culprit.trial_id, 0):
                steps[culprit.trial_id], deaths[culprit.trial_id] = step, 0
            deaths[culprit.trial_id] += 1
            if outcome.ending is Ending.LOST and deaths[culprit.trial_id] < ATTEMPTS:
                continue
            given_up.add(culprit.trial_id)
            _conclude(culprit, outcome, context, started_at or clock.started_at())
            if outcome.ending not in REPEATED:
                remove_checkpoints(context.results.storage, culprit.trial_id)


def _with_equal_resources(trials: list[Trial], context: RunContext) -> list[Trial]:
    """Return the first trials, up to one whose arm has other resources: a group of workers has one kind."""
    first = context.for_arm(trials[0].arm.name).resources
    return [*takewhile(lambda trial: context.for_arm(trial.arm.name).resources == first, trials)]


def _group_timeout_s(resources: Resources) -> int:
    """Return how long replicas wait for each other: longer than rank 0 waits for all their circuits."""
    return _PROCESS_GROUP_TIMEOUT_S + math.ceil(CircuitPool.longest_wait_s(resources.circuit_timeout_s))


def _fit(trials: list[Trial], context: RunContext) -> None:
    """One group of workers, all of these trials. Raises `TrainingFailedError`."""
    workers, resources = trials[0].workers, context.resources
    least = resources.least_workers
    timeout_s = _group_timeout_s(resources)
    torch_config, trainer_class = TorchConfig(timeout_s=timeout_s), TorchTrainer
    if context.cluster.private:
        torch_config = OneNodeTorchConfig(context.cluster.scratch, timeout_s=timeout_s)
        trainer_class = PrivateTrainer
    trainer = trainer_class(
        _work,
        train_loop_config={"trials": trials, "context": context},
        torch_config=torch_config,
        scaling_config=ScalingConfig(
            num_workers=workers if least is None or least >= workers else (least, workers),
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.worker_request(),
        ),
        # Whole trials are repeated here, where it is known which one was under way.
        run_config=RunConfig(
            name=f"{trials[0].study}-{trials[0].trial_id}",
            storage_path=context.cluster.scratch,
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=ATTEMPTS, max_preemption_failures=0),
        ),
    )
    with _polled_every(_poll_s(trials[0])):
        trainer.fit()


def _poll_s(trial: Trial) -> float:
    return _LONG_POLL_S if trial.workload.has_long_steps else _SHORT_POLL_S


@contextmanager
def _polled_every(seconds: float) -> Iterator[None]:
    """Ray hands the driver's variable to the controller as the fit begins; one that is set already stays."""
    if _POLLS in os.environ:
        yield
        return
    os.environ[_POLLS] = str(seconds)
    try:
        yield
    finally:
        os.environ.pop(_POLLS, None)


def _work(config: dict[str, Any]) -> None:
    """Train the trials one after the other; every worker of a group runs this."""
    trials: list[Trial] = config["trials"]
    context: RunContext = config["context"]
    torch.set_num_threads(max(1, int(context.resources.cpus_per_worker)))
    train_context = ray.train.get_context()
    sharding = context.resources.sharding
    replica = Replica(train_context.get_world_rank(), train_context.get_world_size(), str(get_device()), sharding)
    group = _group_for_checkpoints(context)
    workload = make_workload(trials[0].workload, device=replica.device)
    for trial in trials:
        # A group that Ray made larger or smaller begins its list again.
        if replica.broadcast(replica.rank == 0 and context.results.has(trial.trial_id)):
            continue
        if context.gate is not None and replica.broadcast(replica.rank == 0 and not context.gate.is_open()):
            return
        if trial.workload != workload.settings:
            workload = make_workload(trial.workload, device=replica.device)
        clock = TrialClock()
        checkpoints = _make_checkpoints(trial, context, replica, group, clock.began_at)
        measurements: list[Measurement] = []
        try:
            outcome = run(
                train(trial, workload, context.circuits, replica, checkpoints),
                partial(_first_reports, context, replica, trial, measurements),
            )
        except Exception as error:
            # The others of the group wait for this one, so it ends them all; what it says here is what the row keeps.
            lost = isinstance(error, CircuitsLost | StorageError)
            if replica.world_size > 1 and not lost:
                time.sleep(_DEATH_REPORT_S + _poll_s(trial))
            began = clock.started_at(checkpoints.started_at if checkpoints else None)
            raise _TrialError(traceback.format_exc(), lost, tuple(measurements), began) from None
        _require_equal_replicas(outcome, replica)
        if replica.rank == 0:
            if checkpoints is not None:
                outcome = replace(outcome, checkpoints_failed=checkpoints.n_failed)
            _conclude(trial, outcome, context, clock.started_at(checkpoints.started_at if checkpoints else None))
            if checkpoints is not None:
                checkpoints.remove()
        replica.all_reduce_sum(0.0)  # no replica runs ahead of the row


def _make_checkpoints(
    trial: Trial, context: RunContext, replica: Replica, group: ProcessGroup | None, started_at: datetime
) -> Checkpoints | None:
    """Return the trial's checkpoints; None where the study keeps none."""
    every = context.resources.checkpoint_steps
    if every is None:
        return None
    from qsgd_ray.training.checkpoints import Checkpoints

    return Checkpoints(
        context.results.storage,
        trial.trial_id,
        every=every,
        keep=context.resources.checkpoints_kept,
        replica=replica,
        group=group,
        started_at=started_at,
    )


def _group_for_checkpoints(context: RunContext) -> ProcessGroup | None:
    """They are written while the default group is at work, and lie in the memory of CPUs: torch asks for such a group
    also where there is one worker."""
    if context.resources.checkpoint_steps is None:
        return None
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=WRITE_TIMEOUT_S))


def _first_reports(
    context: RunContext, replica: Replica, trial: Trial, measurements: list[Measurement], measurement: Measurement
) -> bool:
    measurements.append(measurement)
    return replica.rank == 0 and context.report(trial, measurement)


def _require_equal_replicas(outcome: Outcome, replica: Replica) -> None:
    """Raise where replicas ended with different bits: a study on drifting replicas would measure the drift."""
    mine = float(int((outcome.parameters_sha256 or "0")[:10], 16))  # sums of 40 bits are exact in a float64
    if replica.all_reduce_sum(mine)[0] != mine * replica.world_size:
        raise RuntimeError(f"replica {replica.rank} ended with parameters that differ from another replica's")


def _conclude(trial: Trial, outcome: Outcome, context: RunContext, started_at: datetime) -> None:
    context.results.write(trial, outcome, started_at=started_at, host=socket.gethostname())
    context.ended(trial, outcome.ending, outcome.error)


def _ended_by(error: TrainingFailedError) -> tuple[Outcome, datetime | None]:
    """Return how the trial under way ended, with all that was measured of it, and when it began if that is known.

    It is `lost` where a process died, its circuits were lost or its row could not be stored, or where no worker raised
    at all. Ray Train wraps the death of a worker in the failure of its health check; the other replicas then raise as
    well, for the connection that broke: one death explains them all.
    """
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    raised = [failure for failure in failures.values() if isinstance(failure, _TrialError)]
    died = any(
        isinstance(getattr(f, "health_check_failure", f), RayActorError | WorkerHealthCheckTimeoutError)
        for f in failures.values()
    )
    starved = [f for f in failures.values() if isinstance(getattr(f, "health_check_failure", f), OutOfMemoryError)]
    unwritten = any(isinstance(failure, StorageError) for failure in failures.values())
    lost = died or unwritten or not failures or any(failure.lost for failure in raised)
    text = "\n".join(f"rank {rank}: {failure}" for rank, failure in sorted(failures.items())) or str(error)
    if starved and not died:  # Ray ended a worker whose node ran out of memory; the others raise for the connection
        text += f"\nOutOfMemoryError: {starved[0]}".rstrip()
        lost = False
    fullest = max(raised, key=lambda failure: len(failure.measurements), default=None)
    outcome = Outcome(
        Ending.LOST if lost else failure_ending(text), fullest.measurements if fullest else (), error=text
    )
    return outcome, fullest.started_at if fullest else None
