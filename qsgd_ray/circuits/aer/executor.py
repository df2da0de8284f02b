"""Import of Qiskit Aer, in such a way that torch's threads stay as quick as before.

Aer runs every job in one thread of its own, which keeps a team of OpenMP workers while it lives. Beside torch's team
these are more threads than a small machine has cores, and OpenMP then puts a waiting thread to sleep at once: the
operations of a batch of small states took twice as long for the rest of the process (two cores, torch 2.13, Aer 0.18.2,
2026-11-22: 28 sleeps a batch of 4,096 states of 4 qubits, none before). So here the thread ends with the last job.
Aer's own option for this, `executor`, is documented and not read.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from threading import Lock
from typing import Any

from qsgd_ray.circuits.errors import CircuitError


def import_aer() -> None:
    """Import Qiskit Aer and give it an executor whose thread ends when idle. CircuitError in one line: no Aer here."""
    try:
        import qiskit_aer
    except ImportError:
        raise CircuitError("backend aer: needs qiskit-aer (pip install qiskit-aer)") from None
    utils = qiskit_aer.jobs.utils
    # Every job looks it up. After a fork Aer puts an executor of its own here, since threads do not survive the fork.
    if type(getattr(utils, "DEFAULT_EXECUTOR", None)) is ThreadPoolExecutor:
        utils.DEFAULT_EXECUTOR = _ThreadWhileBusy()  # the old one ends its thread with its last job and reference


class _ThreadWhileBusy(Executor):
    """Runs jobs one after the other, in their order, in a thread that ends with the last of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._unfinished = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="aer")
            future = self._thread.submit(fn, *args, **kwargs)
            self._unfinished += 1
        future.add_done_callback(self._finish)
        return future

    def _finish(self, _: Future[Any]) -> None:
        with self._lock:
            self._unfinished -= 1
            if self._unfinished == 0 and self._thread is not None:
                self._thread.shutdown(wait=False)
                self._thread = None
