"""Prepare a run before its stages: options and a study in; checks, and a connection to Ray, out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from qsgd_ray.analysis.design import out_of_reach
from qsgd_ray.config import Study
from qsgd_ray.config.optimizer_version import unversioned, with_versions
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.results import Results
from qsgd_ray.storage import Storage

if TYPE_CHECKING:
    from qsgd_ray.execution.connection import Cluster
    from qsgd_ray.execution.events import Event
    from qsgd_ray.tracking.selection import TrackerChoice


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


@dataclass(frozen=True)
class RunOptions:
    """Options of a run, as `run` takes them.

    Attributes:
        address: of a running cluster; None: the one in RAY_ADDRESS, else a private Ray.
        overrides: changes of the study, for the record.
        track: words that name trackers.
        progress: True shows progress; a function is called with each event.
        path: the study file; None: there is none.
        interrupts: contexts of a caller that handles signals.
    """

    address: str | None
    overrides: tuple[str, ...]
    track: tuple[str, ...]
    progress: bool | Callable[[Event], object]
    path: Path | None
    interrupts: Interrupts

    @cached_property
    def console(self) -> Console:
        """The console of the run; it is quiet where no progress is to be shown."""
        return plain_console(quiet=self.progress is not True)

    def trackers(self, study: Study, place: Storage) -> list[TrackerChoice]:
        """Return the trackers of a study of one workload; StudyError, one line, where a word names none."""
        from qsgd_ray.tracking.selection import choose_tracker

        return [choose_tracker(word, "--track", study.name, place) for word in self.track]


def print_design(study: Study, console: Console) -> None:
    """Print what a study asks, and which verdict its plan cannot reach."""
    console.print(f"{study.name}: {study.question}", style="bold", soft_wrap=True)
    if (lacking := out_of_reach(study)) is not None:
        console.print(lacking, soft_wrap=True, highlight=False)


def noting_versions(study: Study, results: Results, console: Console) -> Study:
    """Return a study whose optimizers say of which version they are, as far as the rows that are there do.

    Args:
        study: one of any number of workloads, as its file states it.
        results: where its rows lie, held by this process.
        console: is told where earlier rows have no version.
    """
    study = with_versions(study, results.stored_study())
    if old := unversioned(study):
        line = f"of {', '.join(old)} another version is no other trial."
        console.print(
            f"The folder is from before versions of optimizers were noted: {line}", soft_wrap=True, highlight=False
        )
    return study


def require_startable(study: Study, place: Storage, options: RunOptions) -> None:
    """Refuse a study of one workload that cannot run here.

    Args:
        study: the study.
        place: where its rows go.
        options: of the run.

    Raises:
        StudyError: the first thing that is missing, or checkpoints of another version; one line.
    """
    from qsgd_ray.execution.preflight import require_runnable
    from qsgd_ray.training.checkpoint_index import require_known_format

    require_runnable(study, options.address)
    if study.resources.checkpoint_steps is not None:
        require_known_format(place)


@contextmanager
def connected(study: Study, results: Results, options: RunOptions) -> Iterator[Cluster]:
    """Connect to the Ray that a study runs on, and look whether a shared one has what its parts need.

    Args:
        study: one of any number of workloads.
        results: where its rows lie.
        options: of the run.

    Raises:
        StudyError: nothing answers at the address, or a node lacks a package; one line.
        RayLost: a private Ray did not start.
    """
    from qsgd_ray.execution.connection import connect

    with (
        options.interrupts.starting(results),
        _handlers_put_back() as put_back,
        connect(study, options.address, results.storage) as cluster,
    ):
        put_back()
        with options.interrupts.running(results, cluster):
            if not cluster.private:
                _look_at_nodes([*study.parts().values()], options.console)
            yield cluster


def _look_at_nodes(studies: Sequence[Study], console: Console) -> None:
    from qsgd_ray.execution.preflight import shortage
    from qsgd_ray.execution.requirements import ask_nodes, report_here, require_modules_there, version_differences

    if short := shortage(studies[0]):  # all parts have the same resources
        console.print(short, soft_wrap=True, highlight=False)
    lines: dict[str, None] = {}
    for study in studies:
        reports = ask_nodes(study)
        require_modules_there(study, reports)
        lines |= dict.fromkeys(version_differences(report_here(), reports))
    for line in lines:
        console.print(line, soft_wrap=True)


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
