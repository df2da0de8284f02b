"""Read a study that was run into a place: the place in; its result out, of one workload or of several."""

from __future__ import annotations

from pathlib import Path

from qsgd_ray.results import Results
from qsgd_ray.results.whole import WholeResults, is_whole
from qsgd_ray.storage import Storage, storage_at
from qsgd_ray.study.result import StudyResult
from qsgd_ray.study.workloads_result import WorkloadsResult


def read_results(where: str | Path | Storage) -> StudyResult | WorkloadsResult:
    """Return the result of a study that was run into a folder or an object store, as far as it went.

    Args:
        where: the study's own folder, `storage/<study.name>`, or its URI; of a study of several workloads that of a
            part, `storage/<study.name>/<workload>`, gives the part alone.

    Raises:
        StudyError: no study was run into `where`, or its files are broken; one line.

    Example:
        >>> read_results("results/quick").verdicts  # doctest: +SKIP
        sine: inconclusive, +0.39 points (−1.20 to +1.98). ...
    """
    storage = storage_at(where)
    if is_whole(storage):
        return WorkloadsResult.read(WholeResults(storage))
    results = Results(storage)
    return StudyResult(results.tables(), results.storage)
