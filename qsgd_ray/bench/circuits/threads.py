"""Measure with a number of threads: every library reads it when it is imported, so each number is a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

# Set in the environment of a process whose libraries have that many threads.
_MARK = "QSGD_RAY_BENCH_THREADS"
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "QULACS_NUM_THREADS",
    "NPROC",  # XLA's threads
)


def run_with_threads(threads: int, words: Sequence[str]) -> int:
    """Run `qsgd-ray` in a process of its own with that many threads, and return its exit code.

    Args:
        threads: 1 or more.
        words: the command's words.
    """
    return subprocess.run(  # nosec B603 # this Python with words of this package
        [sys.executable, "-m", "qsgd_ray.cli", *words], env=_environment(threads), check=False
    ).returncode


def threads_of_this_process() -> int | None:
    """Return the number that `run_with_threads` gave this process, which is held to it; None: it did not."""
    threads = os.environ.get(_MARK)
    if threads is None:
        return None
    if hasattr(os, "sched_setaffinity"):  # Linux: what reads no variable does not get more processors either
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    import torch

    torch.set_num_threads(int(threads))
    return int(threads)


def _environment(threads: int) -> dict[str, str]:
    environment = dict(os.environ) | dict.fromkeys((*_VARIABLES, _MARK), str(threads))
    environment |= {"JAX_PLATFORMS": "cpu"}
    if threads == 1:
        flags = f"{environment.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        environment |= {"XLA_FLAGS": flags.strip()}
    return environment
