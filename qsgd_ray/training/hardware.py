"""What this hardware can do at most: a device and a type in; floating point operations a second out, as measured.

A large matrix product is as near to the peak as code gets; of a GPU it reaches most of what the data sheet says. The
utilisation that a study tells is against this measurement, on the very threads and in the type that train.
"""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5), clear_refs


def reset_peak_memory(device: str | torch.device) -> None:
    """Count from now on, where the system can: a CPU's count is that of the process, and elsewhere than on Linux that
    of its whole life."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        RESET.write_text(RESET_PEAK)


def peak_memory_bytes(device: str | torch.device) -> int:
    """Bytes that torch's allocator gave out on a GPU; on a CPU the resident memory of the process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


LARGEST = 8192
ENOUGH_S = 0.05  # a product as long as that is limited by arithmetic alone
REPEATS = 3


@cache
def matmul_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """The best of a few products; a fraction of a second, once a process."""
    size, best_s = 128, 0.0
    while best_s < ENOUGH_S and size < LARGEST:
        size *= 2
        best_s = min(_seconds(size, device, dtype) for _ in range(REPEATS))
    return 2 * size**3 / best_s


def _seconds(size: int, device: str, dtype: torch.dtype) -> float:
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    left @ right
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
