"""Run a trial under Ray Tune: a step is an epoch of all its runs; a trial that is stopped writes its rows as well.

A run is a `Training` of one of three kinds: in this process, on a group of Ray Train workers, or replayed from the
rows that an interrupted study left.
"""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from ray import tune
from ray.exceptions import RayActorError

from qsgd_ray.analysis.objectives import RunResult, objective_values
from qsgd_ray.circuits.errors import CircuitsLost
from qsgd_ray.config import Metric, Study
from qsgd_ray.config.trial import Trial, search_trials
from qsgd_ray.execution._stop_channel import StopChannel
from qsgd_ray.execution._trial_clock import TrialClock
from qsgd_ray.execution.train_group import RunContext, _make_checkpoints, run_trials
from qsgd_ray.outcome import REPEATED, USABLE, Ending, Measurement, Outcome, failure_ending
from qsgd_ray.results import Results
from qsgd_ray.storage import StorageError
from qsgd_ray.training.loop import Training, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import Workload, make_workload

if TYPE_CHECKING:
    from qsgd_ray.training.checkpoints import Checkpoints

SCORE = "quality"  # the objective that halving looks at
EPOCH = "epoch"
# How far the best run of a trial that has ended by itself came; None where none has a usable result.
ENDING = "ending"
VALUES = "values"  # of the metric, one a seed, where the search compares them


class _TrialLost(RuntimeError):
    """A trial's workers were lost too often, or lacked something: an error for Tune, for the study a trial to run."""


class TunedTrial(tune.Trainable):
    """One trial of a search, all its seeds side by side; its actor is used again for the next one (`reuse_actors`)."""

    def setup(self, config: dict[str, Any], study: Study, context: RunContext) -> None:
        """Begin the trial that `config` names.

        Args:
            config: the arm's name, the trial's number and its point, as `arm`, `number` and `point`.
            study: the study.
            context: what its trials share.
        """
        self._study, self._context = study, context
        self._workload: Workload | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial; the one before gets its rows first where the scheduler has stopped it."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        trials, metric = self._named(config), self._study.metric
        context = self._context.for_arm(trials[0].arm.name)
        torch.set_num_threads(max(1, int(context.resources.cpus_per_worker)))
        self._runs = [_SeedRun(trial, context, self._workload_of, metric) for trial in trials]
        self._is_new, self._is_stopped = True, False

    def _named(self, config: dict[str, Any]) -> list[Trial]:
        return search_trials(self._study, config["arm"], config["number"], config["point"])

    def _workload_of(self, trial: Trial, device: str) -> Workload:
        if self._workload is None or self._workload.settings != trial.workload:
            self._workload = make_workload(trial.workload, device=device)
        return self._workload

    def step(self) -> dict[str, Any]:
        """One epoch of every run that is under way."""
        if self._is_new and not self._may_start():
            return self._not_started()
        self._is_new = False
        try:
            for run in self._runs:
                run.step()
            # It was stopped before its process was: the others, which have no row yet, end where it ended.
            if any(run.ending is Ending.STOPPED_EARLY for run in self._runs):
                self._stop_runs()
            self._require_available()
        except (CircuitsLost, StorageError, _TrialLost):
            for run in self._runs:
                run.measurements.clear()
            raise  # no outcome of this trial: the search tries it again
        search, results = self._study.search, [run.result for run in self._runs]
        values = objective_values(results, search.objectives, self._study.metric)
        endings = [run.ending for run in self._runs]
        done = None not in endings
        return {
            **dict(zip(search.objectives, values, strict=True)),
            **({} if search.replicate_pruning is None else {VALUES: [result.value for result in results]}),
            EPOCH: max((run.measurements[-1].epoch for run in self._runs if run.measurements), default=0),
            **({ENDING: next((one for one in USABLE if one in endings), None)} if done else {}),
            "done": done,
        }

    def _may_start(self) -> bool:
        """Return True where a trial may still start, or this one's rows are all there."""
        return self._context.may_start() or all(self._context.results.has(run.trial_id) for run in self._runs)

    def _not_started(self) -> dict[str, Any]:
        """Leave the trial without a row: the arm's search rests, as where a trial is lost."""
        raise _TrialLost(f"{self._runs[0].trial_id}: the budget is spent")

    def _require_available(self) -> None:
        """Raise where a run lacked something: the sampler learns nothing of it, and the arm's search rests."""
        if any(run.ending is Ending.UNAVAILABLE for run in self._runs):
            raise _TrialLost(f"{self._runs[0].trial_id}: {Ending.UNAVAILABLE}")

    def expect_stop(self) -> None:
        """Take in that the scheduler has stopped the trial, so that its runs get rows as they end."""
        self._is_stopped = True

    def cleanup(self) -> None:
        """End every run at its present epoch and write its row, where the scheduler has stopped the trial.

        Where Tune itself fails, it ends all trials in this way too (tune.run, 2.60), and none of them has stopped.
        """
        if self._is_stopped:
            self._stop_runs()

    def _stop_runs(self) -> None:
        for run in self._runs:
            run.stop()


class _SeedRun:
    """One run of a trial, epoch by epoch, as if no other were at work in this process between them."""

    def __init__(
        self, trial: Trial, context: RunContext, workload_of: Callable[[Trial, str], Workload], metric: Metric
    ) -> None:
        self.measurements: list[Measurement] = []
        self.ending: Ending | None = None
        self._trial, self._context, self._metric = trial, context, metric
        self._clock = TrialClock()
        self._checkpoints: Checkpoints | None = None
        self._writes_row = False
        self._last_epoch = trial.epochs
        self._device = "cuda" if context.resources.gpus_per_worker > 0 else "cpu"
        self._generators: list[torch.Tensor] | None = None
        self._training = self._way_through(workload_of)

    def _way_through(self, workload_of: Callable[[Trial, str], Workload]) -> Training:
        trial, context = self._trial, self._context
        if context.results.has(trial.trial_id):
            if context.results.ending(trial.trial_id) is Ending.STOPPED_EARLY:
                self._last_epoch = len(context.results.trajectory(trial.trial_id))
            return _replay_rows(trial, context.results)
        if trial.workers > 1:
            return _train_on_workers(trial, context)
        self._writes_row = True
        replica = Replica(device=self._device)
        self._checkpoints = _make_checkpoints(trial, context, replica, None, self._clock.began_at)
        return _train_here(trial, partial(workload_of, trial, self._device), context, replica, self._checkpoints)

    @property
    def trial_id(self) -> str:
        """Name of its trial."""
        return self._trial.trial_id

    @property
    def result(self) -> RunResult:
        """Its last measurement; no result where it diverged or failed."""
        usable = self.ending is None or self.ending in USABLE
        return RunResult.from_measurement(self.measurements[-1] if self.measurements else None, self._metric, usable)

    def step(self) -> None:
        """One epoch, and the end after the last one."""
        if self.ending is None:
            self._advance(stop=None if not self.measurements else False)
        if self.ending is None and len(self.measurements) == self._last_epoch:
            self._advance(stop=False)

    def stop(self) -> None:
        """End the training at its present epoch."""
        if self.ending is None and self.measurements:
            self._advance(stop=True)

    def _advance(self, stop: bool | None) -> None:
        try:
            measurement = self._send(stop)
        except StopIteration as end:
            self._end(end.value)
        except (CircuitsLost, StorageError, _TrialLost):
            raise
        except Exception:  # the trial's edge: a bug in one trial is that trial's outcome
            self._writes_row = True
            error = traceback.format_exc()
            self._end(Outcome(failure_ending(error), tuple(self.measurements), error=error))
        else:
            self.measurements.append(measurement)
            if self._writes_row:
                self._context.report(self._trial, measurement)

    def _send(self, stop: bool | None) -> Measurement:
        """Dropout draws from torch's global generators: each run goes on with its own state of them."""
        if self._generators is not None:
            torch.set_rng_state(self._generators[0])
            if self._device == "cuda":
                torch.cuda.set_rng_state(self._generators[1])
        try:
            return self._training.send(stop)
        finally:
            cuda = [torch.cuda.get_rng_state()] if self._device == "cuda" else []
            self._generators = [torch.get_rng_state(), *cuda]

    def _end(self, outcome: Outcome) -> None:
        self.ending = outcome.ending
        if not self._writes_row:
            return
        started_at = self._clock.started_at(self._checkpoints.started_at if self._checkpoints else None)
        if self._checkpoints is not None:
            outcome = replace(outcome, checkpoints_failed=self._checkpoints.n_failed)
        self._context.results.write(self._trial, outcome, started_at=started_at, host=socket.gethostname())
        if self._checkpoints is not None:
            self._checkpoints.remove()
        self._context.ended(self._trial, outcome.ending, outcome.error)


def _train_here(
    trial: Trial,
    make: Callable[[], Workload],
    context: RunContext,
    replica: Replica,
    checkpoints: Checkpoints | None,
) -> Training:
    """Train a trial in this process. Its data and model are made as its first step: what they lack is its outcome."""
    return (yield from train(trial, make(), context.circuits, replica, checkpoints))


def _replay_rows(trial: Trial, results: Results) -> Training:
    """Yield the measurements of a trial that has its row already, and return its outcome, without training.

    Args:
        trial: has its row in `results`.
        results: the study's.
    """
    measurements = [Measurement.from_row(row) for row in results.trajectory(trial.trial_id)]
    for measurement in measurements:
        if (yield measurement):
            break
    return Outcome(results.ending(trial.trial_id), tuple(measurements))


def _train_on_workers(trial: Trial, context: RunContext) -> Training:
    """Train a trial on a group of Ray Train workers, which writes its row.

    Args:
        trial: takes more than one worker.
        context: what the trials share.
    """
    channel = StopChannel()

    def report(of: Trial, measurement: Measurement) -> bool:
        context.report(of, measurement)
        return channel.ask(measurement)

    failure: list[BaseException] = []

    def fit() -> None:
        try:
            # It has started: what is spent meanwhile does not hold it back.
            run_trials([trial], replace(context, report=report, gate=None))
        except BaseException as error:
            failure.append(error)
        finally:
            with suppress(RayActorError):  # the other side has ended
                channel.end()

    group = threading.Thread(target=fit, name=f"fit {trial.trial_id}")
    group.start()
    seen: list[Measurement] = []
    stop = False
    with closing(channel):
        while (measurement := channel.next()) is not None:
            # A group that died is started again and passes epochs already told; a stop once decided stays.
            if not stop and (not seen or measurement.epoch > seen[-1].epoch):
                seen.append(measurement)
                stop = bool((yield measurement))
            channel.decide(stop)
        group.join()
    if failure:
        raise failure[0]
    ending = context.results.ending(trial.trial_id)
    if ending in REPEATED:
        raise _TrialLost(f"{trial.trial_id}: {'its workers were lost' if ending is Ending.LOST else ending}")
    return Outcome(ending, tuple(seen))
