"""Run a study of several workloads: its parts one after the other on one Ray; a joint result out.

Every part is a study of one workload with rows of its own, so what is there after an interruption is gone on with part
by part. The whole is held by one lease, and all that can be wrong is looked for before the first part begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from qsgd_ray.analysis.status import is_finished
from qsgd_ray.config import Study, StudyError
from qsgd_ray.results import Results
from qsgd_ray.results.whole import WholeResults
from qsgd_ray.study._session import RunOptions, connected, noting_versions, print_design, require_startable
from qsgd_ray.study.result import StudyResult
from qsgd_ray.study.workloads_result import WorkloadsResult

if TYPE_CHECKING:
    from qsgd_ray.execution.connection import Cluster


class _RunOne(Protocol):
    """The function of run.py that runs a study of one workload."""

    def __call__(
        self, study: Study, results: Results, options: RunOptions, cluster: Cluster | None, *, is_part: bool
    ) -> StudyResult:
        """Run what is missing, and return the result."""
        ...


def run_parts(study: Study, results: WholeResults, options: RunOptions, run_one: _RunOne) -> WorkloadsResult:
    """Run what is missing of a study of several workloads, write its pages, and return its result.

    A part that cannot go on for now ends the run of that part alone; a Ray that is lost ends the whole run.

    Args:
        study: the study, with `workloads`.
        results: where its parts' rows go.
        options: of the run.
        run_one: runs one part, on the Ray of this process where anything is missing.

    Raises:
        StudyError: a part cannot run here, or another process runs it; one line.
    """
    from qsgd_ray.execution.errors import RayLost
    from qsgd_ray.results.provenance import provenance

    parts, console = study.parts(), options.console
    for name, part in parts.items():
        options.trackers(part, results.parts[name].storage)
    print_design(study, console)
    for name, part in parts.items():
        with _named(name):
            require_startable(part, results.parts[name].storage, options)
    finished: dict[str, StudyResult] = {}
    lost: str | None = None
    with results.held() as lease:
        study = noting_versions(study, results, console)
        parts = study.parts()
        results.open(study, provenance(study, options.path, [*options.overrides], options.address))
        if options.path is not None:
            results.storage.put("study.py", options.path.read_bytes())
        _require_repeatable(parts, results)
        try:
            is_missing = not all(_is_finished(part, results.parts[name]) for name, part in parts.items())
            with connected(study, results, options) if is_missing else nullcontext() as cluster:
                for number, (name, part) in enumerate(parts.items(), start=1):
                    lease.check()
                    line = f"Workload {name}, {number} of {len(parts)}"
                    console.print(line, style="bold", soft_wrap=True, highlight=False)
                    finished[name] = run_one(part, results.parts[name], options, cluster, is_part=True)
                    line = f"{name}: {finished[name].analysis.headline}"
                    console.print(line, soft_wrap=True, highlight=False, markup=False)
                    if cluster is not None:
                        cluster.require_alive()
        except RayLost as error:
            lost = str(error)
        lease.check()
        result = WorkloadsResult.read(results, study, finished, lost)
        result.write_page()
    return result


def _is_finished(part: Study, results: Results) -> bool:
    """Return True where nothing is missing of a part; one without rows was perhaps never opened."""
    return results.count() > 0 and is_finished(results.tables(part, measurements=False))


def _require_repeatable(parts: Mapping[str, Study], results: WholeResults) -> None:
    """Take the first step of every task of the user's own twice, where its part has no rows yet."""
    from qsgd_ray.execution.preflight import require_repeatable_tasks

    for name, part in parts.items():
        if not results.parts[name].count():
            with _named(name):
                require_repeatable_tasks(part)


@contextmanager
def _named(workload: str) -> Iterator[None]:
    """Name a refused workload by its path in the whole study."""
    try:
        yield
    except StudyError as error:
        text = str(error)
        if not text.startswith("workload"):
            raise
        raise StudyError(f"workloads.{workload}{text.removeprefix('workload')}") from None
