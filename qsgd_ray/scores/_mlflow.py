"""Rows of MLflow: an experiment or runs in; a row a run out, with `params.`, `metrics.` and `tags.`, and its status."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.scores._rows import Rows

_PAGE = 1000


def run_rows(runs: Sequence[Any], source: str) -> Rows:
    """Return a row for each run; a metric is the one that was logged last.

    Args:
        runs: `mlflow.entities.Run`s.
        source: where they come from, in words.
    """
    rows = []
    for run in runs:
        parts = (("params", run.data.params), ("metrics", run.data.metrics), ("tags", run.data.tags))
        row = {f"{part}.{name}": value for part, values in parts for name, value in values.items()}
        rows.append(row | {"run_id": run.info.run_id, "status": run.info.status})
    return Rows.of_dicts(rows, source)


def experiment_rows(words: str) -> Rows:
    """Return the rows of an experiment, `EXPERIMENT` or `EXPERIMENT@URI`; without a URI that of MLFLOW_TRACKING_URI.

    Raises:
        StudyError: MLflow is missing, or knows no such experiment; one line.
    """
    name, _, uri = words.partition("@")
    if not name:
        raise StudyError("table: got 'mlflow:'; allowed: mlflow:EXPERIMENT or mlflow:EXPERIMENT@TRACKING_URI")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's, of SQLAlchemy
            from mlflow.tracking import MlflowClient

            client: Any = MlflowClient(tracking_uri=uri or None)
            experiment = client.get_experiment_by_name(name)
            runs: list[Any] = []
            token = None
            while experiment is not None:
                page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
                runs += page
                token = page.token
                if not token:
                    break
    except ImportError:
        raise StudyError(
            "table: got mlflow:...; allowed: that where mlflow is installed (pip install mlflow)"
        ) from None
    except Exception as error:  # of a package that is none of ours
        reason = one_line(f"{type(error).__name__}: {error}", limit=120)
        raise StudyError(f"table: got 'mlflow:{words}'; allowed: an experiment that can be read ({reason})") from None
    if experiment is None:
        raise StudyError(f"table: got 'mlflow:{words}'; allowed: the name of an experiment that is there")
    return run_rows(runs, f"the MLflow experiment {name}")
