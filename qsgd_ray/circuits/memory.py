"""What a simulation needs of memory: a number of qubits in; bytes, or a refusal before anything is allocated, out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

from qsgd_ray.circuits.errors import CircuitMemoryError

# A gate reads one state and writes another, with half a state of scratch (measured: tests/circuits/test_memory.py).
STATES_AT_ONCE = 2.5
# Linux: of control groups, second and first version.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def statevector_bytes(n_qubits: int, dtype: torch.dtype = torch.complex128) -> int:
    """Bytes of one state of `n_qubits` qubits in `dtype`."""
    return dtype.itemsize << n_qubits


def needed_bytes(n_qubits: int, dtype: torch.dtype = torch.complex128) -> int:
    """Bytes that the exact simulation of one circuit takes at its peak: 2.5 states."""
    return statevector_bytes(n_qubits, dtype) * int(2 * STATES_AT_ONCE) // 2  # in integers: no float is as large


def format_bytes(n_bytes: int) -> str:
    """So many bytes in words; those that no machine has as a power of two."""
    return f"{n_bytes:,} bytes" if n_bytes < 2**60 else f"2^{n_bytes.bit_length() - 1} bytes"


def available_bytes(device: torch.device | None = None) -> int:
    """Bytes that can still be allocated on `device` (None: the CPU) without swapping."""
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)


def total_bytes() -> int:
    """Bytes that this machine has, or as many as its control group (a container) may take."""
    total = int(psutil.virtual_memory().total)
    for limit in LIMITS:
        with suppress(OSError, ValueError):  # no such group; "max"
            total = min(total, int(limit.read_text()))
    return total


def require_memory(n_qubits: int, available: int, dtype: torch.dtype = torch.complex128, kept_states: int = 0) -> None:
    """CircuitMemoryError unless one circuit of `n_qubits` qubits can be simulated in `available` bytes.

    `kept_states`: how many states the answer itself holds, besides what the simulation takes.
    """

    def needed(n: int) -> int:
        return needed_bytes(n, dtype) + max(0, kept_states - 1) * statevector_bytes(n, dtype)

    if needed(n_qubits) <= available:
        return
    largest = 0
    while needed(largest + 1) <= available:
        largest += 1
    states = f"{kept_states} states" if kept_states > 1 else "a simulation"
    raise CircuitMemoryError(
        f"n_qubits: got {n_qubits}, {states} that needs {format_bytes(needed(n_qubits))} with {available:,} there; "
        f"allowed: at most {largest}"
    )
