"""What a call takes: calls by size in; seconds in turns, and the memory of one call, out."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from qsgd_ray.bench.timing import MAX_ROUNDS, interleaved
from qsgd_ray.peak_memory import peak_memory_bytes, reset_peak_memory

STATUS = Path("/proc/self/status")
Call = Callable[[], Any]
# Of glibc (malloc.h): blocks of at least so many bytes are mapped, and unmapped when they are freed.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
KEPT_BYTES, ADAPTED_BYTES = 2**16, 2**25


def in_turns(calls: Mapping[str, Call], budget_s: float) -> dict[str, list[float]]:
    """`interleaved`, the quick calls among themselves: beside slow ones they would get as few rounds as these."""
    slow: dict[str, Call] = {}
    quick: dict[str, Call] = {}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        (quick if time.perf_counter() - began < budget_s / (8 * MAX_ROUNDS) else slow)[name] = call
    return interleaved(quick, budget_s / 2) | interleaved(slow, budget_s)


def spread(seconds: list[float]) -> dict[str, Any]:
    """Columns of a row: the median, and between which the middle half lies."""
    low, high = np.percentile(seconds, [25, 75]).tolist()
    return {"rounds": len(seconds), "median_s": statistics.median(seconds), "low_s": low, "high_s": high}


def peak_bytes(call: Call) -> int | None:
    """Resident memory of one call beyond what was there before; None where the system does not tell."""
    gc.collect()
    with _freed_at_once():
        before = _resident()
        if before is None:
            return None
        reset_peak_memory("cpu")
        call()
        return max(0, peak_memory_bytes("cpu") - before)


@contextmanager
def _freed_at_once() -> Iterator[None]:
    """What is freed within goes back to the system, also where it is small.

    glibc keeps blocks up to 32 MiB, its threshold once it has adapted (mallopt(3)): a call would find its memory
    resident already, and states up to 20 qubits would take twice as many of their sizes as larger ones. Elsewhere:
    nothing.
    """
    try:
        glibc = ctypes.CDLL(None)
        glibc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        glibc.malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        yield
        return
    try:
        yield
    finally:
        glibc.mallopt(M_MMAP_THRESHOLD, ADAPTED_BYTES)
        glibc.mallopt(M_TRIM_THRESHOLD, 2 * ADAPTED_BYTES)


def _resident() -> int | None:
    with suppress(OSError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024
    return None


def middle(values: Any) -> dict[str, float]:
    """Columns of a row: the median of a signal and its quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"signal": median, "signal_low": low, "signal_high": high}
