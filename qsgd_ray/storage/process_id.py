"""Identity of a process, which no other one ever has, and whether that very process still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessId:
    """A process, told from every other one, also from a later one of the same number.

    Attributes:
        machine: 8 hexadecimal digits for the host, its boot and the namespace that its process numbers are of.
        pid: number of the process there.
        started: its start, in the machine's own clock ticks.
    """

    machine: str
    pid: int
    started: int

    def is_dead(self) -> bool | None:
        """Return True where it has ended, False while it lives; None of another machine, where nobody here can know."""
        if self.machine != _machine():
            return None
        return _start(self.pid) != self.started


def process_id(pid: int) -> ProcessId:
    """Return the identity of the process that has a number on this machine now; a dead one's where none has it.

    Example:
        >>> process_id(os.getpid()).is_dead()
        False
    """
    return ProcessId(_machine(), pid, _start(pid) or 0)


def _this_process() -> ProcessId:
    """Return the identity of the calling process."""
    return _own(os.getpid())


@lru_cache(maxsize=1)
def _machine() -> str:
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        words = [socket.gethostname(), boot.read_text().strip(), os.readlink(namespace)]
    except OSError:  # no Linux: one host, one namespace
        words = [socket.gethostname(), str(int(psutil.boot_time()))]
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


@lru_cache(maxsize=1)  # a forked process has another number
def _own(pid: int) -> ProcessId:
    return process_id(pid)


def _start(pid: int) -> int | None:
    """Return the start of a process of this machine; None where there is none, or it only waits to be collected."""
    try:
        # The name of the program stands in brackets, and may hold brackets and spaces itself.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        pass
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except psutil.Error:
        return None
