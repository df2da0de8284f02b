"""Measurements of this hardware: peak memory in bytes, and the most floating point operations a second.

A large matrix product comes as near to the peak as code gets; on a GPU it reaches most of the data sheet's figure. The
utilisation in a study's report is against this measurement, on the same threads and in the same type as the training.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5), clear_refs


def _reset_peak_memory(device: str | torch.device) -> None:
    """Start a new count of the peak memory, where the system can.

    A CPU's peak is that of the process. Linux alone can reset it; elsewhere it is that of the process's whole life.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)


def _peak_memory_bytes(device: str | torch.device) -> int:
    """Return the peak in bytes: on a GPU of torch's allocator, on a CPU of the resident memory of the process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_LARGEST_SIZE = 8192
_LONG_ENOUGH_S = 0.05  # arithmetic alone limits a product that takes as long as that
_REPEATS = 3


@cache
def matmul_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """Measure the most floating point operations a second by the best of a few square matrix products.

    It takes a fraction of a second, and runs once a process for each device and type.

    Args:
        device: e.g. "cpu" (on torch's current number of threads) or "cuda:0".
        dtype: type of both factors.

    Returns:
        Operations a second, 2 n^3 for a product of n x n matrices; a multiplication and an addition are two.
    """
    size, best_s = 128, 0.0
    while best_s < _LONG_ENOUGH_S and size < _LARGEST_SIZE:
        size *= 2
        best_s = min(_seconds(size, device, dtype) for _ in range(_REPEATS))
    return 2 * size**3 / best_s


def _seconds(size: int, device: str, dtype: torch.dtype) -> float:
    """Time one product of two size x size matrices."""
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    start_s = time.perf_counter()
    left @ right
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start_s
