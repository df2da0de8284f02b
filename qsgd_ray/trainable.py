"""A trial as Ray Tune sees it: a step is an epoch, being stopped is a step of its own with a row at its end.

Three ways to go through a trial, all of them a `Training`: here in this process, on a group of Ray Train workers, or
again from the rows that an interrupted study left.
"""

from __future__ import annotations

import socket
import threading
import traceback
from contextlib import closing, suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import torch
from ray import tune
from ray.exceptions import RayActorError

from qsgd_ray.checkpoints import Checkpoints
from qsgd_ray.circuits.backends import CircuitsLost
from qsgd_ray.config import Study
from qsgd_ray.distributed import Site, checkpoints_of, run_trials
from qsgd_ray.outcome import Ending, Measurement, Outcome
from qsgd_ray.replica import Replica
from qsgd_ray.results import Results
from qsgd_ray.rung import Rung
from qsgd_ray.storage import StorageError
from qsgd_ray.training import Training, train
from qsgd_ray.trial import Trial, search_trial
from qsgd_ray.workloads import Workload, make_workload

SCORE = "score"  # what Optuna and halving look at: validation accuracy, 0 for a trial without one
EPOCH = "epoch"


class TrialLost(RuntimeError):
    """The workers of a trial were lost once too often: for Tune an error, for the study a trial still to run."""


class TunedTrial(tune.Trainable):
    """One trial of a search; its actor is used again for the next one (`reuse_actors`)."""

    def setup(self, config: dict[str, Any], study: Study, site: Site) -> None:
        """`config`: which arm, which number, which point of its space."""
        torch.set_num_threads(max(1, int(site.resources.cpus_per_worker)))
        self._study, self._site = study, site
        self._workload: Workload | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; the one before, if it was stopped in mid-way, gets its row first."""
        self.cleanup()
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = self._named(config)
        self._measurements: list[Measurement] = []
        self._started_at = datetime.now(UTC)
        self._outcome: Outcome | None = None
        self._checkpoints: Checkpoints | None = None
        self._training, self._writes_row = self._way_through()

    def _named(self, config: dict[str, Any]) -> Trial:
        return search_trial(self._study, config["arm"], config["number"], config["point"])

    def _way_through(self) -> tuple[Training, bool]:
        """The training, and whether its row is ours to write."""
        if self._site.results.has(self._trial.trial_id):
            return replayed(self._trial, self._site.results), False
        if self._trial.workers > 1:
            return on_workers(self._trial, self._site), False
        replica = Replica(device="cuda" if self._site.resources.gpus_per_worker > 0 else "cpu")
        if self._workload is None:
            self._workload = make_workload(self._trial.workload, device=replica.device)
        self._checkpoints = checkpoints_of(self._trial, self._site, replica, None, self._started_at)
        return train(self._trial, self._workload, self._site.circuits, replica, self._checkpoints), True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        self._advance(stop=None if not self._measurements else False)
        if self._outcome is None and len(self._measurements) == self._trial.epochs:
            self._advance(stop=False)
        last = self._measurements[-1] if self._measurements else None
        lost = self._outcome is not None and self._outcome.ending not in (Ending.COMPLETED, Ending.STOPPED_EARLY)
        return {
            SCORE: last.validation_accuracy if last and not lost else 0.0,
            EPOCH: last.epoch if last else 0,
            "done": self._outcome is not None,
        }

    def cleanup(self) -> None:
        """Stopped by the scheduler: the training ends at the epoch it is at, and its row is written."""
        if self._outcome is None and self._measurements:
            self._advance(stop=True)

    def _advance(self, stop: bool | None) -> None:
        try:
            measurement = self._training.send(stop)
        except StopIteration as end:
            self._outcome = end.value
            if self._writes_row:
                self._write(end.value)
        except (CircuitsLost, StorageError, TrialLost):
            self._measurements.clear()
            raise  # no outcome of this trial: the search tries it again
        except Exception:  # the trial's edge: a bug in one trial is that trial's outcome
            self._outcome = Outcome(Ending.FAILED, tuple(self._measurements), error=traceback.format_exc())
            self._write(self._outcome)
        else:
            self._measurements.append(measurement)
            if self._writes_row:
                self._site.report(self._trial, measurement)

    def _write(self, outcome: Outcome) -> None:
        started_at = self._checkpoints.started_at if self._checkpoints else self._started_at
        if self._checkpoints is not None:
            outcome = replace(outcome, checkpoints_failed=self._checkpoints.n_failed)
        self._site.results.write(self._trial, outcome, started_at=started_at, host=socket.gethostname())
        if self._checkpoints is not None:
            self._checkpoints.remove()
        self._site.ended(self._trial, outcome.ending)


def replayed(trial: Trial, results: Results) -> Training:
    """A trial that has its row already: the same measurements and the same end, without training."""
    names = [field.name for field in fields(Measurement)]
    measurements = [Measurement(**{name: row[name] for name in names}) for row in results.trajectory(trial.trial_id)]
    for measurement in measurements:
        if (yield measurement):
            break
    return Outcome(results.ending(trial.trial_id), tuple(measurements))


def on_workers(trial: Trial, site: Site) -> Training:
    """A trial on a group of Ray Train workers, which writes the row itself."""
    rung = Rung()

    def report(of: Trial, measurement: Measurement) -> bool:
        site.report(of, measurement)
        return rung.ask(measurement)

    failure: list[BaseException] = []

    def fit() -> None:
        try:
            run_trials([trial], replace(site, report=report))
        except BaseException as error:
            failure.append(error)
        finally:
            with suppress(RayActorError):  # nobody is left to be told
                rung.end()

    group = threading.Thread(target=fit, name=f"fit {trial.trial_id}")
    group.start()
    seen: list[Measurement] = []
    stop = False
    with closing(rung):
        while (measurement := rung.next()) is not None:
            # A group that died is started again and passes epochs already told; a stop once decided stays.
            if not stop and (not seen or measurement.epoch > seen[-1].epoch):
                seen.append(measurement)
                stop = bool((yield measurement))
            rung.decide(stop)
        group.join()
    if failure:
        raise failure[0]
    ending = site.results.ending(trial.trial_id)
    if ending is Ending.LOST:
        raise TrialLost(f"{trial.trial_id}: its workers were lost")
    return Outcome(ending, tuple(seen))
