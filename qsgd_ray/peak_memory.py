"""The most memory that a process, or its GPU, held at a time: a device in, bytes out."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
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
