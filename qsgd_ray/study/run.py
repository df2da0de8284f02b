"""Run a study from its settings to its verdict: `run(study)` for scripts, notebooks and the command.

Rows are stored as soon as a trial ends, so a run that is cut off loses at most the trials under way: the same call goes
on from there.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsgd_ray.analysis.design import out_of_reach
from qsgd_ray.config import Limits, Study, StudyError
from qsgd_ray.config.loading import split_scale, with_overrides
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.storage import Folder, Lease, Storage, storage_at
from qsgd_ray.study.result import StudyResult

if TYPE_CHECKING:
    from qsgd_ray.execution.connection import Cluster
    from qsgd_ray.execution.events import Event

# How often events are fetched while the stages run.
_POLL_S = 0.5
# How long stages whose Ray is gone may take to notice it.
_END_S = 5.0


class Interrupts:
    """Contexts around the parts of a run, for a caller that handles signals; this one leaves every signal alone."""

    def starting(self, results: Results) -> AbstractContextManager[Any]:
        """Return the context of everything that uses Ray; a KeyboardInterrupt passes through it after Ray has ended.

        Args:
            results: where the rows lie.
        """
        return nullcontext(results)

    def running(self, results: Results, cluster: Cluster) -> AbstractContextManager[Any]:
        """Return the context of the stages; a KeyboardInterrupt passes through it while Ray still runs.

        Args:
            results: where the rows lie.
            cluster: the Ray that the stages run on.
        """
        return nullcontext((results, cluster))


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
) -> StudyResult:
    """Run what is missing of a study, write its report, and return its result.

    Call it again with the same arguments to go on after an interruption; a finished study only reads its rows. The call
    returns when every planned trial has its row, or when no trial can go on for now: then `StudyResult.failure` says
    why. It installs no signal handler and never ends the process. Ctrl-C is a KeyboardInterrupt that ends Ray.

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
        The result, with the report in `StudyResult.page`.

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
    study, place = _checked_study(study, overrides), _checked_place(storage, study)
    _check_arguments(address, track, progress)
    from qsgd_ray.execution.connection import connect, set_ray_environment
    from qsgd_ray.execution.errors import RayLost
    from qsgd_ray.execution.preflight import require_repeatable_tasks, require_runnable, shortage
    from qsgd_ray.execution.requirements import ask_nodes, report_here, require_modules_there, version_differences

    set_ray_environment()
    from qsgd_ray.circuits.errors import CircuitError
    from qsgd_ray.results.provenance import provenance
    from qsgd_ray.study._progress import Progress
    from qsgd_ray.study._stages import StudyUnfinished
    from qsgd_ray.tracking.background import Tracking
    from qsgd_ray.tracking.selection import choose_tracker
    from qsgd_ray.training.checkpoint_index import require_known_format

    console = plain_console(quiet=progress is not True)
    interrupts = interrupts or Interrupts()
    trackers = [choose_tracker(word, "--track", study.name, place) for word in track]
    results = Results(place)
    console.print(f"{study.name}: {study.question}", style="bold", soft_wrap=True)
    if (lacking := out_of_reach(study)) is not None:
        console.print(lacking, soft_wrap=True, highlight=False)
    require_runnable(study, address)
    if study.resources.checkpoint_steps is not None:
        require_known_format(place)
    path = None if study_file is None else Path(study_file)
    with results.held() as lease:
        results.open(study, provenance(study, path, [*overrides], address))
        if path is not None:
            place.put("study.py", path.read_bytes())
        tracking = Tracking(trackers, results)
        tables = results.tables(study)
        if not tables.trials.num_rows:
            require_repeatable_tasks(study)
        stages = _Stages(study, results, tables, lease)
        try:
            with (
                interrupts.starting(results),
                _handlers_put_back() as put_back,
                connect(study, address, place) as cluster,
            ):
                put_back()
                with interrupts.running(results, cluster):
                    if not cluster.private and (short := shortage(study)):
                        console.print(short, soft_wrap=True, highlight=False)
                    if not cluster.private:
                        reports = ask_nodes(study)
                        require_modules_there(study, reports)
                        for line in version_differences(report_here(), reports):
                            console.print(line, soft_wrap=True)
                    with Progress(console, tables) as display:
                        for event in stages.events(cluster):
                            display.show(event)
                            tracking.tell(event)
                            if callable(progress):
                                progress(event)
        except RayLost as lost:
            stages.join(_END_S)
            return _finished(study, results, lease, tracking, lost)
        except BaseException:
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
    warnings = tracking.finish(tables)
    if failed := sum(count or 0 for count in tables.trials["checkpoints_failed"].to_pylist()):
        place = results.storage
        warnings.append(f"{failed} checkpoints could not be written to {place}; no row is missing for that")
    result = StudyResult(tables, results.storage, str(failure) if failure else None, tuple(warnings))
    result.report()
    return result


class _Stages:
    """The stages of a study in a thread of their own.

    In the main thread Ray Tune and Ray Train would take over Ctrl-C, each in its own way.
    """

    def __init__(self, study: Study, results: Results, tables: StudyTables, lease: Lease) -> None:
        self._study, self._results, self._tables, self._lease = study, results, tables, lease
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def events(self, cluster: Cluster) -> Iterator[Event]:
        """Run the stages on `cluster`, and yield their events until the last has ended.

        Raises:
            RayLost: a process of a private Ray has ended, or Ray itself has failed.
            StudyError: another process has taken the results over, as this one was silent for too long.
        """
        from qsgd_ray.execution.errors import RayLost, is_of_ray
        from qsgd_ray.execution.events import EventQueue

        events = EventQueue()
        self._thread = threading.Thread(target=self._run, args=(cluster, events), name="stages", daemon=True)
        self._thread.start()
        while self._thread.is_alive():
            self._thread.join(timeout=_POLL_S)
            cluster.require_alive()
            self._lease.check()
            yield from events.drain()
        if is_of_ray(self.failure):
            assert self.failure is not None
            # Of a raylet that is about to end, its actors may have told first.
            until = time.monotonic() + _END_S
            while cluster.private and time.monotonic() < until:
                cluster.require_alive()
                time.sleep(_POLL_S)
            raise RayLost.by(self.failure)

    def _run(self, cluster: Cluster, events: Any) -> None:
        from qsgd_ray.study._stages import run_stages

        try:
            run_stages(self._study, self._results, cluster, events, self._tables)
        except BaseException as error:
            self.failure = error

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, where it has begun."""
        if self._thread is not None:
            self._thread.join(timeout_s)


@contextmanager
def _handlers_put_back() -> Iterator[Callable[[], None]]:
    """Yield a function that restores the handler of SIGTERM which ray.init replaces by its own; call it at the end too.

    Ray's handler raises SystemExit and is never taken back (ray/_private/node.py, 2.60).
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGTERM)

    def put_back() -> None:
        if before is not None:
            signal.signal(signal.SIGTERM, before)

    try:
        yield put_back
    finally:
        put_back()


def _checked_study(study: Any, overrides: Any) -> Study:
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
