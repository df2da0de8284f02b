"""Memory of a statevector simulation: its need in bytes, what the machine has, and a refusal in advance."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

from qsgd_ray.circuits.errors import CircuitMemoryError

# A gate reads one state and writes another, with half a state of scratch (measured: tests/circuits/test_memory.py).
_PEAK_STATES = 2.5
# Memory limits of Linux control groups, version 2 and version 1.
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def statevector_bytes(n_qubits: int, dtype: torch.dtype = torch.complex128) -> int:
    """Return the size of one state, 2**n_qubits amplitudes.

    Args:
        n_qubits: number of qubits, >= 0.
        dtype: type of an amplitude; the default takes 16 bytes.

    Returns:
        Bytes.
    """
    return dtype.itemsize << n_qubits


def needed_bytes(n_qubits: int, dtype: torch.dtype = torch.complex128) -> int:
    """Return the peak memory of the exact simulation of one circuit: 2.5 states.

    Args:
        n_qubits: number of qubits, >= 0.
        dtype: type of an amplitude; the default takes 16 bytes.

    Returns:
        Bytes.

    Example:
        >>> needed_bytes(30) == 40 * 2**30
        True
    """
    return statevector_bytes(n_qubits, dtype) * int(2 * _PEAK_STATES) // 2  # in integers: no float is as large


def format_bytes(n_bytes: int) -> str:
    """Return a number of bytes as text; from 2**60 on, more than any machine has, as a power of two."""
    return f"{n_bytes:,} bytes" if n_bytes < 2**60 else f"2^{n_bytes.bit_length() - 1} bytes"


def available_bytes(device: torch.device | None = None) -> int:
    """Return the bytes that can still be allocated on `device` (None: the CPU) without swapping."""
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)


def total_bytes() -> int:
    """Return the memory of this machine in bytes, or that of its control group (a container) where that is less."""
    total = int(psutil.virtual_memory().total)
    for limit in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such group, or "max"
            total = min(total, int(limit.read_text()))
    return total


def require_memory(
    n_qubits: int, available: int, dtype: torch.dtype = torch.complex128, answer_states: int = 0
) -> None:
    """Refuse a simulation that does not fit, before anything is allocated.

    Args:
        n_qubits: number of qubits of the circuit.
        available: bytes that the simulation may take.
        dtype: type of an amplitude.
        answer_states: number of whole states in the answer (those of a batch, where states are returned); all but the
            one under way are counted on top of the simulation's own 2.5.

    Raises:
        CircuitMemoryError: the need is larger than `available`; the message names the largest circuit that fits.
    """

    def needed(n: int) -> int:
        return needed_bytes(n, dtype) + max(0, answer_states - 1) * statevector_bytes(n, dtype)

    if needed(n_qubits) <= available:
        return
    largest = 0
    while needed(largest + 1) <= available:
        largest += 1
    states = f"{answer_states} states" if answer_states > 1 else "a simulation"
    raise CircuitMemoryError(
        f"n_qubits: got {n_qubits}, {states} that needs {format_bytes(needed(n_qubits))} with {available:,} there; "
        f"allowed: at most {largest}"
    )
