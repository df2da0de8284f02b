"""Run a study from its settings to its verdict: `run(study)` for scripts, notebooks and the command.

Rows are stored as soon as a trial ends, so a run that is cut off loses at most the trials under way: the same call goes
on from there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsgd_ray.analysis.budget import budget_status
from qsgd_ray.analysis.status import is_finished
from qsgd_ray.config import Limits, Study, StudyError
from qsgd_ray.config.loading import split_scale, with_overrides
from qsgd_ray.config.own_task import IMPORTS_ONLY
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.results.whole import WholeResults
from qsgd_ray.storage import Folder, Lease, Storage, storage_at
from qsgd_ray.study._meter import Meter
from qsgd_ray.study._parts import run_parts
from qsgd_ray.study._session import Interrupts as Interrupts
from qsgd_ray.study._session import RunOptions, connected, noting_versions, print_design, require_startable
from qsgd_ray.study.result import StudyResult
from qsgd_ray.study.workloads_result import WorkloadsResult

if TYPE_CHECKING:
    from qsgd_ray.execution.connection import Cluster
    from qsgd_ray.execution.events import Event

# How often events are fetched while the stages run.
_POLL_S = 0.5
# How long stages whose Ray is gone may take to notice it.
_END_S = 5.0


def run(
    study: Study,
    *,
    storage: str | Path | Storage = "results",
    address: str | None = None,
    overrides: Sequence[str] = (),
    track: Sequence[str] = (),
    progress: bool | Callable[[Event], object] = True,
    study_file: str | Path | None = None,
    interrupts: Interrupts | None = None,
) -> StudyResult | WorkloadsResult:
    """Run what is missing of a study, write its report, and return its result.

    Call it again with the same arguments to go on after an interruption; a finished study only reads its rows, without
    Ray. The call returns when every planned trial has its row, or when no trial can go on for now, as where the study's
    budget is spent: then `StudyResult.failure` says why. It installs no signal handler and never ends the process.
    Ctrl-C is a KeyboardInterrupt that ends Ray.

    Args:
        study: the study.
        storage: results go to `storage/<study.name>`; a folder, or a URI such as "s3://bucket/prefix".
        address: a running Ray cluster, e.g. "auto" or "ray://host:10001"; None: the one that the variable RAY_ADDRESS
            names, else a private Ray on this machine for the time of the call.
        overrides: changes of the study as "path=value", e.g. "confirm.seeds=[1,2,3]"; they are kept in the provenance.
        track: trackers that show trials while they run, "tensorboard[=FOLDER]" or "mlflow[=URI]".
        progress: True shows progress on standard output; False shows nothing; a function is called with each `Event`
            (a trial was measured, or ended) in this thread.
        study_file: the file that states the study; a copy is kept among the results. None: no copy is kept, as
            `study.json` has all of the study.
        interrupts: contexts for a caller that handles signals itself; None: signals are left alone.

    Returns:
        The result, with the report in `StudyResult.page`; of a study of several workloads a `WorkloadsResult`.

    Raises:
        StudyError: an argument is wrong, the study cannot run on this machine, the results of another version lie
            there, or another process runs a study into the same place; one line.
        StorageError: an object store does not answer.

    Example:
        >>> import qsgd_ray as q
        >>> result = q.run(q.load_study("studies/quick.py"), storage="results")  # doctest: +SKIP
        >>> [verdict.verdict for verdict in result.verdicts]  # doctest: +SKIP
        [<Verdict.INCONCLUSIVE: 'inconclusive'>]
    """
    study = _checked_study(study, overrides)
    place = _checked_place(storage, study)  # an override may have changed the study's name
    _check_arguments(address, track, progress)
    from qsgd_ray.execution.connection import set_ray_environment

    set_ray_environment()
    path = None if study_file is None else Path(study_file)
    options = RunOptions(address, tuple(overrides), tuple(track), progress, path, interrupts or Interrupts())
    if study.workloads is None:
        return _run_one(study, Results(place), options)
    return run_parts(study, WholeResults(place, tuple(study.workloads)), options, _run_one)


def _run_one(
    study: Study, results: Results, options: RunOptions, cluster: Cluster | None = None, *, is_part: bool = False
) -> StudyResult:
    """Run what is missing of a study of one workload.

    Args:
        study: the study, or a part of one of several workloads.
        results: where its rows go.
        options: of the run.
        cluster: the Ray that a part runs on; None: it is connected here, where anything is missing.
        is_part: the study is a part, whose checks were made before.
    """
    from qsgd_ray.circuits.errors import CircuitError
    from qsgd_ray.execution.errors import RayLost
    from qsgd_ray.execution.nodes import count_nodes
    from qsgd_ray.execution.preflight import require_repeatable_tasks
    from qsgd_ray.results.provenance import provenance
    from qsgd_ray.search.warm_start import read_warm_start
    from qsgd_ray.study._progress import Progress
    from qsgd_ray.study._stages import BudgetSpent, StudyUnfinished
    from qsgd_ray.tracking.background import Tracking
    from qsgd_ray.training.checkpoint_index import FOLDER as CHECKPOINTS

    place, console = results.storage, options.console
    trackers = options.trackers(study, place)
    if not is_part:
        print_design(study, console)
        require_startable(study, place, options)
    with results.held() as lease:
        if not is_part:
            study = noting_versions(study, results, console)
        made_with = provenance(study, options.path, [*options.overrides], options.address)
        if (earlier := read_warm_start(study, results)) is not None:
            console.print(earlier.sentence, soft_wrap=True, highlight=False)
            made_with |= {"warm_start": earlier.sentence, "warm_start_trials": earlier.counts}
        results.open(study, made_with)
        if earlier is not None:
            earlier.copy_into(results)
        if options.path is not None and not is_part:
            place.put("study.py", options.path.read_bytes())
        tracking = Tracking(trackers, results)
        tables = results.tables(study)
        if not is_part and not tables.trials.num_rows:
            require_repeatable_tasks(study)
        if is_finished(tables):  # no Ray is needed to read rows
            if study.resources.checkpoint_steps is not None:
                place.remove(CHECKPOINTS)  # of a run that was killed after its last row
            return _finished(study, results, lease, tracking, None)
        meter = Meter(tables, results.storage, lease)
        if study.budget is not None:
            status = budget_status(tables)
            if status.is_spent and status.ended < status.planned:
                return _finished(study, results, lease, tracking, BudgetSpent())
            console.print(status.forecast, soft_wrap=True, highlight=False)
        stages = _Stages(study, results, tables, lease, meter)
        try:
            with connected(study, results, options) if cluster is None else nullcontext(cluster) as ray:
                count = partial(count_nodes, study, ray)
                with meter.counting(count), Progress(console, tables, meter) as display:
                    for event in stages.events(ray, count):
                        display.show(event)
                        tracking.tell(event)
                        if callable(options.progress):
                            options.progress(event)
        except RayLost as lost:
            stages.join(_END_S)
            return _finished(study, results, lease, tracking, lost)
        except BaseException:
            if not is_part:  # else the Ray of the stages runs on until this has reached whoever started it
                stages.join(_END_S)
            raise
        if stages.failure is not None and not isinstance(stages.failure, StudyUnfinished | CircuitError):
            raise stages.failure
        return _finished(study, results, lease, tracking, stages.failure)


def _finished(
    study: Study, results: Results, lease: Lease, tracking: Any, failure: BaseException | None
) -> StudyResult:
    """Read the rows of the study that was run here, complete the trackers, write the report."""
    lease.check()
    results.pack()
    tables = results.tables(study)
    from qsgd_ray.study._stages import BudgetSpent

    warnings = tracking.finish(tables)
    if failed := sum(count or 0 for count in tables.trials["checkpoints_failed"].to_pylist()):
        place = results.storage
        warnings.append(f"{failed} checkpoints could not be written to {place}; no row is missing for that")
    reason = budget_status(tables).end_sentence if isinstance(failure, BudgetSpent) else failure and str(failure)
    result = StudyResult(tables, results.storage, reason or None, tuple(warnings))
    result.report()
    return result


class _Stages:
    """The stages of a study in a thread of their own.

    In the main thread Ray Tune and Ray Train would take over Ctrl-C, each in its own way.
    """

    def __init__(self, study: Study, results: Results, tables: StudyTables, lease: Lease, meter: Meter) -> None:
        self._study, self._results, self._tables, self._lease = study, results, tables, lease
        self._meter = meter
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def events(self, cluster: Cluster, count: Callable[[], Mapping[str, int] | None]) -> Iterator[Event]:
        """Run the stages on `cluster`, and yield their events until the last has ended.

        Once the budget is spent, no further trial starts; what runs is trained to its end.

        Args:
            cluster: the Ray that the stages run on.
            count: returns the number of its nodes by kind.

        Raises:
            RayLost: a process of a private Ray has ended, or Ray itself has failed.
            StudyError: another process has taken the results over, as this one was silent for too long.
        """
        from qsgd_ray.execution.errors import RayLost, is_of_ray
        from qsgd_ray.execution.events import EventQueue
        from qsgd_ray.execution.start_gate import StartGate

        events, gate = EventQueue(), StartGate() if self._study.budget is not None else None
        self._thread = threading.Thread(target=self._run, args=(cluster, events, gate), name="stages", daemon=True)
        self._thread.start()
        while self._thread.is_alive():
            self._thread.join(timeout=_POLL_S)
            cluster.require_alive()
            self._lease.check()
            self._meter.tick(count)
            if gate is not None and self._meter.is_spent:
                gate.close()
                gate = None
            yield from events.drain()
        if is_of_ray(self.failure):
            assert self.failure is not None
            # Of a raylet that is about to end, its actors may have told first.
            until = time.monotonic() + _END_S
            while cluster.private and time.monotonic() < until:
                cluster.require_alive()
                time.sleep(_POLL_S)
            raise RayLost.by(self.failure)

    def _run(self, cluster: Cluster, events: Any, gate: Any) -> None:
        from qsgd_ray.study._stages import run_stages

        try:
            run_stages(self._study, self._results, cluster, events, self._tables, gate)
        except BaseException as error:
            self.failure = error

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, where it has begun."""
        if self._thread is not None:
            self._thread.join(timeout_s)


def _checked_study(study: Any, overrides: Any) -> Study:
    if IMPORTS_ONLY in os.environ:
        raise StudyError('run: got a call while its own file is imported; allowed: below if __name__ == "__main__":')
    if not isinstance(study, Study):
        hint = "; qsgd-ray run FILE runs a study of limits" if isinstance(study, Limits) else ""
        raise StudyError(f"study: got {type(study).__name__}; allowed: a Study{hint}")
    _check_words("overrides", overrides, "path=value")
    # The scale is the study file's own and has been chosen there; it stands among the overrides for the record.
    return with_overrides(study, split_scale([*overrides])[1])


def _checked_place(storage: Any, study: Study) -> Storage:
    if not isinstance(storage, str | Path) and not hasattr(storage, "put"):
        raise StudyError(f"storage: got {storage!r}; allowed: a folder, or a URI such as s3://BUCKET/PREFIX")
    place = storage_at(storage) / study.name
    return Folder(place.path.resolve()) if isinstance(place, Folder) else place


def _check_arguments(address: Any, track: Any, progress: Any) -> None:
    if not isinstance(address, str | None):
        raise StudyError(f"address: got {address!r}; allowed: the address of a running Ray cluster, or None")
    _check_words("track", track, "tensorboard, tensorboard=FOLDER, mlflow or mlflow=URI")
    if not isinstance(progress, bool) and not callable(progress):
        raise StudyError(f"progress: got {progress!r}; allowed: True, False, or a function of an event")


def _check_words(name: str, words: Any, allowed: str) -> None:
    if isinstance(words, str) or not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise StudyError(f"{name}: got {words!r}; allowed: a list of {allowed}")
