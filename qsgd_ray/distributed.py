"""The training loop under Ray Train: trials in, rows in the study's folder out.

One fit carries a batch of trials one after the other: starting a group of workers takes longer than a small trial. Each
trial's rows are in place before the next one begins, so a fit that dies costs the trial it was at, and no other.
"""

from __future__ import annotations

import os
import socket
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from qsgd_ray.circuits.backends import CircuitBackend
from qsgd_ray.config import Resources
from qsgd_ray.connection import Cluster
from qsgd_ray.outcome import Ending, Measurement, Outcome
from qsgd_ray.results import Results
from qsgd_ray.training import Replica, run, train
from qsgd_ray.trial import Trial
from qsgd_ray.workloads import make_workload

# A group whose processes die is started again this often before its trial is given up as lost.
ATTEMPTS = 3
PROCESS_GROUP_TIMEOUT_S = 300

# Told each measurement of each trial, on rank 0; answers True to stop that trial. Must travel to the workers.
Report = Callable[[Trial, Measurement], bool]
# Told how each trial ended, on rank 0 or on the driver. Must travel to the workers.
Ended = Callable[[Trial, Ending], None]


class TrialError(RuntimeError):
    """A trial raised on a worker: its traceback, as text that survives the way to the driver."""


@dataclass(frozen=True)
class Site:
    """What every trial of a study shares: where it runs, who answers circuits, where rows go, who is told."""

    cluster: Cluster
    resources: Resources
    circuits: CircuitBackend | None
    results: Results
    report: Report
    ended: Ended


def run_trials(trials: list[Trial], site: Site, trials_per_fit: int | None = None) -> None:
    """Give every trial its row. All trials use the same number of workers; those that have a row are left alone.

    A trial whose code raised is `failed` and the others go on. One whose processes died is repeated, `ATTEMPTS` times
    at most, then it is `lost`.
    """
    given_up: set[str] = set()
    deaths: dict[str, int] = {}
    while waiting := [t for t in trials if t.trial_id not in given_up and not site.results.has(t.trial_id)]:
        try:
            _fit(waiting[:trials_per_fit], site)
        except WorkerGroupError as error:
            culprit = next((t for t in waiting if not site.results.has(t.trial_id)), None)
            if culprit is None:
                continue
            ending = Ending.LOST if _died(error) else Ending.FAILED
            deaths[culprit.trial_id] = deaths.get(culprit.trial_id, 0) + 1
            if ending is Ending.LOST and deaths[culprit.trial_id] < ATTEMPTS:
                continue
            given_up.add(culprit.trial_id)
            _conclude(culprit, Outcome(ending, error=_told(error)), site, datetime.now(UTC))


def _fit(trials: list[Trial], site: Site) -> None:
    """One group of workers, all of these trials. Raises `WorkerGroupError`."""
    workers, resources = trials[0].workers, site.resources
    torch_config = TorchConfig(timeout_s=PROCESS_GROUP_TIMEOUT_S)
    trainer_class = TorchTrainer
    if site.cluster.private:
        torch_config = _OneNodeTorchConfig(timeout_s=PROCESS_GROUP_TIMEOUT_S)
        trainer_class = _PrivateTrainer
    trainer_class(
        _work,
        train_loop_config={"trials": trials, "site": site},
        torch_config=torch_config,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={"CPU": resources.cpus_per_worker}
            | ({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
        ),
        # Whole trials are repeated here, where it is known which one was under way.
        run_config=RunConfig(
            name=f"{trials[0].study}-{trials[0].trial_id}",
            storage_path=site.cluster.scratch,
            failure_config=FailureConfig(max_failures=0),
        ),
    ).fit()


def _work(config: dict[str, Any]) -> None:
    """What every worker of a group runs."""
    trials: list[Trial] = config["trials"]
    site: Site = config["site"]
    torch.set_num_threads(max(1, int(site.resources.cpus_per_worker)))
    context = ray.train.get_context()
    replica = Replica(context.get_world_rank(), context.get_world_size(), str(get_device()))
    workload = make_workload(trials[0].workload, device=replica.device)
    for trial in trials:
        if trial.workload != workload.settings:
            workload = make_workload(trial.workload, device=replica.device)
        started_at = datetime.now(UTC)
        try:
            outcome = run(train(trial, workload, site.circuits, replica), partial(_first_reports, site, replica, trial))
        except Exception:
            # The others of the group wait for this one, so it ends them all; its traceback is what the row will keep.
            raise TrialError(traceback.format_exc()) from None
        require_equal_replicas(outcome, replica)
        if replica.rank == 0:
            _conclude(trial, outcome, site, started_at)
        replica.sums(0.0)  # no replica runs ahead of the row


def _first_reports(site: Site, replica: Replica, trial: Trial, measurement: Measurement) -> bool:
    return replica.rank == 0 and site.report(trial, measurement)


def require_equal_replicas(outcome: Outcome, replica: Replica) -> None:
    """Every replica must have ended with the same bits; a study on drifting replicas would measure the drift."""
    mine = float(int((outcome.parameters_sha256 or "0")[:10], 16))  # sums of 40 bits are exact in a float64
    if replica.sums(mine)[0] != mine * replica.world_size:
        raise RuntimeError(f"replica {replica.rank} ended with parameters that differ from another replica's")


def _conclude(trial: Trial, outcome: Outcome, site: Site, started_at: datetime) -> None:
    site.results.write(trial, outcome, started_at=started_at, host=socket.gethostname())
    site.ended(trial, outcome.ending)


def _died(error: WorkerGroupError) -> bool:
    """Whether a process was lost, as opposed to code that raised.

    Ray Train wraps the death of a worker in the failure of its health check. The other replicas then raise as well, for
    the connection that broke: one death explains them all.
    """
    causes = [getattr(failure, "health_check_failure", failure) for failure in error.worker_failures.values()]
    return any(isinstance(cause, RayActorError) for cause in causes)


def _told(error: WorkerGroupError) -> str:
    return "\n".join(f"rank {rank}: {failure}" for rank, failure in sorted(error.worker_failures.items()))


class _PrivateTrainer(TorchTrainer):
    """A trainer for a cluster without dashboard and without datasets.

    Ray's own cleaner of placement groups asks the dashboard's state API. Where there is none it cleans nothing and
    holds up the end of every fit for 12 s (measured 2026-11-22 with Ray 2.60; the leak itself is ray issue 54305).
    A private cluster ends with its driver, so nothing can be left behind.
    """

    def _create_default_callbacks(self) -> list[Any]:
        from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

        return [c for c in super()._create_default_callbacks() if not isinstance(c, PlacementGroupCleanerCallback)]


class _OneNodeTorchConfig(TorchConfig):
    """A process group that meets in a file: torch's TCPStore would listen on every interface."""

    @property
    def backend_cls(self) -> type[ray.train.backend.Backend]:
        return _OneNodeBackend


class _OneNodeBackend(ray.train.backend.Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        folder = tempfile.mkdtemp(prefix="qsgd-ray-group-")
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _join,
                    # By place: `rank` is a name of Ray's own here.
                    "nccl" if gpus else "gloo",
                    f"file://{os.path.join(folder, 'store')}",
                    rank,
                    len(worker_group),
                    backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Nothing to do: the processes end with their group."""


def _join(backend: str, url: str, rank: int, world_size: int, timeout_s: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        backend, init_method=url, rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout_s)
    )
