"""Show trials as runs of an MLflow experiment that bears the study's name, at any tracking URI that MLflow knows."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

from qsgd_ray.config.trial import Trial
from qsgd_ray.tracking._records import parameters

_TAG = "qsgd_ray.trial_id"
_STATUS = {"completed": "FINISHED", "stopped_early": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}
# MLflow's own limit of a request.
_MAX_PARAMETERS = 100


class Mlflow:
    """A `Tracker` by mlflow-skinny; sqlite:// needs SQLAlchemy and alembic besides, which Optuna installs."""

    def __init__(self, uri: str, study: str) -> None:
        # Otherwise MLflow tries a dead server for minutes, and reports usage.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's, of SQLAlchemy
            from mlflow.tracking import MlflowClient

            self._client: Any = MlflowClient(tracking_uri=uri)
            there = self._client.get_experiment_by_name(study)
            self._experiment = there.experiment_id if there else self._client.create_experiment(study)
        self._runs: dict[str, tuple[str, str]] = {
            run.data.tags[_TAG]: (run.info.run_id, run.info.status) for run in self._known() if _TAG in run.data.tags
        }

    def _known(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def has(self, trial_id: str) -> bool:
        """See `Tracker`. Lost trials are run again."""
        return self._runs.get(trial_id, ("", ""))[1] in _STATUS.values()

    def begin(self, trial: Trial) -> None:
        """See `Tracker`."""
        from mlflow.entities import Param

        if trial.trial_id in self._runs:
            self._client.delete_run(self._runs[trial.trial_id][0])
        tags = {_TAG: trial.trial_id, "stage": trial.stage, "arm": trial.arm.name}
        run = self._client.create_run(self._experiment, run_name=trial.trial_id, tags=tags).info
        self._runs[trial.trial_id] = (run.run_id, run.status)
        params = [Param(name, str(value)) for name, value in parameters(trial).items()]
        for batch in _batches(params):
            self._client.log_batch(run.run_id, params=batch)

    def log_epoch(self, trial: Trial, epoch: int, numbers: dict[str, float]) -> None:
        """See `Tracker`."""
        self._log(trial, epoch, numbers)

    def end(self, trial: Trial, ending: str, numbers: dict[str, float]) -> None:
        """See `Tracker`."""
        self._log(trial, trial.epochs, numbers)
        run, status = self._runs[trial.trial_id][0], _STATUS.get(ending, "KILLED")
        self._client.set_tag(run, "ending", ending)
        self._client.set_terminated(run, status)
        self._runs[trial.trial_id] = (run, status)

    def _log(self, trial: Trial, epoch: int, numbers: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, float(value), now, epoch) for name, value in numbers.items()]
        self._client.log_batch(self._runs[trial.trial_id][0], metrics=metrics)

    def close(self) -> None:
        """See `Tracker`: runs that are under way stay so until the study goes on."""


def _batches(params: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(params), _MAX_PARAMETERS):
        yield params[start : start + _MAX_PARAMETERS]
