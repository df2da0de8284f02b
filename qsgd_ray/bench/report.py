"""Measure the cost of reading and reporting a large study: seconds, peak memory and the size of the page.

Each number is that of a process of its own, from its start to its end, as a person waits for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from qsgd_ray.bench._large_study import write_large_study
from qsgd_ray.bench.rows import Timing, _timings

FULL, QUICK = (10_000, 100), (300, 30)
_READ = "import sys; from qsgd_ray.results import read; read(sys.argv[1])"
_PACK = "import sys; from qsgd_ray.results import Results; Results(sys.argv[1]).pack()"


def cases(quick: bool) -> Iterator[list[Timing]]:
    """Yield one case: rows as their trials left them, then packed, then read and reported; `quick`: of fewer trials."""
    n_trials, n_epochs = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        write_large_study(Path(folder), n_trials, n_epochs)
        calls = {
            "read, a file a trial": ("-c", _READ, folder),
            "pack": ("-c", _PACK, folder),
            "read, packed": ("-c", _READ, folder),
            "qsgd-ray report": ("-m", "qsgd_ray.cli", "report", folder),
        }
        measured = {name: _run(*words) for name, words in calls.items()}
        page = (Path(folder) / "report.html").stat().st_size
    notes = {name: f"peak memory {peak / 2**30:.2f} GiB" for name, (_, peak) in measured.items()}
    notes["qsgd-ray report"] += f", page {page / 1e6:.1f} MB"
    case = f"a study of {n_trials:,} trials, {n_epochs} epochs each"
    yield _timings(case, "process", {name: [s] for name, (s, _) in measured.items()}, dict.fromkeys(measured, 1), notes)


def _run(*words: str) -> tuple[float, int]:
    """Return the seconds and the peak bytes of a Python process."""
    start = time.perf_counter()
    process = subprocess.Popen(  # nosec B603 # this Python with words of this file
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {output}")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
