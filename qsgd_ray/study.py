"""The stages of a study in their order: search, confirm; each goes on where an earlier run was cut off.

In: a study, its results folder and a cluster. Out: rows. The verdict is read off the rows (analysis/verdict.py).
"""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import ValidationError

from qsgd_ray.bulletin import Bulletin, Event
from qsgd_ray.circuits.backends import CircuitBackend, TorchBackend
from qsgd_ray.config import Arm, Study, StudyError, one_line
from qsgd_ray.connection import Cluster, needs_circuits
from qsgd_ray.distributed import Site, run_trials
from qsgd_ray.outcome import Ending, Measurement
from qsgd_ray.pool import CircuitPool
from qsgd_ray.results import Results
from qsgd_ray.search import Point, run_search
from qsgd_ray.trial import Trial, confirm_trials

POOL_START_TIMEOUT_S = 300


def run_study(study: Study, results: Results, cluster: Cluster, bulletin: Bulletin | None = None) -> None:
    """Run what is missing of `study`; every trial that ends leaves its row at once."""

    def report(trial: Trial, measurement: Measurement) -> bool:
        if bulletin is not None:
            bulletin.post(Event.of(trial, measurement=measurement))
        return False

    def ended(trial: Trial, ending: Ending) -> None:
        if bulletin is not None:
            bulletin.post(Event.of(trial, ending=ending))

    with _circuits(study) as circuits:
        site = Site(cluster, study.resources, circuits, results, report, ended)
        if not search_is_complete(study, results):
            run_search(study, site)
        # Seeds outside, arms inside: what is there after an interruption is paired.
        chosen = [(arm, point) for arm in study.arms if (point := best_point(arm, results)) is not None]
        by_arm = [confirm_trials(study, arm.name, point) for arm, point in chosen]
        run_trials([trial for seed in zip(*by_arm, strict=True) for trial in seed], site, study.confirm.trials_per_fit)


@contextmanager
def _circuits(study: Study) -> Iterator[CircuitBackend | None]:
    """Who answers circuits: nobody, every worker for itself, or a pool that outlives every trial."""
    if not needs_circuits(study):
        yield None
    elif study.resources.circuit_actors is None:
        yield TorchBackend(memory_bytes=psutil.virtual_memory().total)
    else:
        resources = study.resources
        pool = CircuitPool(
            study.resources.circuit_actors, resources.cpus_per_circuit_actor, resources.circuit_timeout_s
        )
        try:
            pool.wait_until_ready(POOL_START_TIMEOUT_S)
            yield pool.backend()
        finally:
            pool.close()


def search_is_complete(study: Study, results: Results) -> bool:
    """Whether every arm has spent its search budget."""
    rows = results.read().trials.to_pylist()
    spent = [row["arm"] for row in rows if row["stage"] == "search" and row["ending"] != Ending.LOST]
    return all(spent.count(arm.name) >= study.planned("search", arm) for arm in study.arms)


def best_point(arm: Arm, results: Results) -> Point | None:
    """The point of the arm's best search trial: validation accuracy after the last epoch, then validation loss.

    Trials that ran to the end come before those that were stopped early; None where no trial got that far. Test data
    is not looked at (protocol, rule 3).
    """
    rows = [row for row in results.read().trials.to_pylist() if row["stage"] == "search" and row["arm"] == arm.name]
    for ending in (Ending.COMPLETED, Ending.STOPPED_EARLY):
        ended = [row for row in rows if row["ending"] == ending]
        if ended:
            best = max(ended, key=lambda row: (row["validation_accuracy"], -row["validation_loss"], -row["number"]))
            return {path: best[path.rpartition(".")[2]] for path in arm.spaces()}
    return None


def load_study(path: Path) -> Study:
    """The `STUDY` of a study file, or `StudyError` in one line."""
    if not path.is_file():
        raise StudyError(f"study file: got {path}; allowed: a Python file that ends in STUDY = Study(...)")
    try:
        study = runpy.run_path(str(path)).get("STUDY")
    except ValidationError as error:
        raise StudyError(f"{path}, line {_line_in(path, error)}: {one_line(error)}") from None
    except (Exception, SystemExit) as error:  # a study file is the user's code: whatever it raises is bad input
        told = " ".join(str(error).split())
        raise StudyError(f"{path}, line {_line_in(path, error)}: {type(error).__name__}: {told}") from None
    if not isinstance(study, Study):
        came = "nothing" if study is None else type(study).__name__
        raise StudyError(f"{path}: STUDY: got {came}; allowed: STUDY = Study(...)")
    return study


def _line_in(path: Path, error: BaseException) -> int | str:
    """The last line of the study file that the error passed through."""
    if isinstance(error, SyntaxError):
        return error.lineno or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines and lines[-1] is not None else "?"
