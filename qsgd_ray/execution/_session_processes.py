"""Find and end the processes of a private Ray, those included whose parents have died.

    python -P _session_processes.py SESSION [LINE]

Run like this, the file is the watchdog of a private Ray. It waits until its standard input closes, which the system
does however the process at the other end ends, by SIGKILL too, or by Ray's core, which ends a process at once where it
does not reach its raylet (core_worker_process.cc, 2.60). Then it ends what that process left behind. Where the process
has not taken its leave first, the watchdog prints the line in its place.

    python -P _session_processes.py SESSION --exit EXIT_CODE

Run like this, it ends the session at once, removes its folder and exits with the code: the last act of a study that was
interrupted.

A session is named by its scratch folder. Every process that Ray starts for it inherits the name in the environment, and
so does what these start in turn, a compiler for instance. Parents tell less: when a raylet is killed, its children are
handed over to another process and no longer count as descendants of the study.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from qsgd_ray.storage.process_id import ProcessId

# The environment variable that holds the session's name.
MARK = "QSGD_RAY_SESSION"
# The programs of Ray's core: its scheduler of a node, and its table of everything.
CORE = ("raylet", "gcs_server")
# What Ray's workers and agents call themselves begins so.
_TITLE = "ray::"
# Ray's processes get this long to end by themselves. Two of its agents do not: when their raylet was killed they try
# for a minute to reach a head that is gone (ray/_private/process_watcher.py, 2.60).
GRACE_S = 3.0
# Killed processes are gone within milliseconds, except where the kernel holds one in a system call.
_KILL_TIMEOUT_S = 10.0
_POLL_S = 0.1


@contextmanager
def marked(session: str) -> Iterator[None]:
    """Let every process that is started within the block belong to the session.

    They do not receive SIGHUP either: when a terminal hangs up, the study ends its Ray in order.
    """
    before = os.environ.get(MARK)
    os.environ[MARK] = session
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # inherited, as the environment is
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before


def session_processes(session: str) -> list[psutil.Process]:
    """Return the living processes of a session, without the calling one."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, session)]


@dataclass(frozen=True)
class CoreProcess:
    """A process without which a private Ray cannot go on; it can be sent to other processes.

    Attributes:
        name: its program.
        process: its identity.
    """

    name: str
    process: ProcessId


def core_processes(session: str) -> tuple[CoreProcess, ...]:
    """Return the processes of a session without which its Ray cannot go on: the raylet and the GCS."""
    from qsgd_ray.storage.process_id import process_id  # run as a script, this file needs nothing but psutil

    named = [(process, _name(process)) for process in session_processes(session)]
    return tuple(CoreProcess(name, process_id(process.pid)) for process, name in named if name in CORE)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _belongs(process: psutil.Process, session: str) -> bool:
    with suppress(psutil.Error, OSError):  # it has ended, or is another user's
        environment = process.environ()
        if MARK in environment:
            return environment[MARK] == session
        # Ray's agents overwrite their environment with their titles, all of it or some. Their logs lie in the session's
        # folder.
        if not environment or "".join(process.cmdline()[:1]).startswith(_TITLE):
            return any(file.path.startswith(f"{session}{os.sep}") for file in process.open_files())
    return False


def end_processes(session: str, grace_s: float = GRACE_S) -> None:
    """Wait until the processes of a session have ended, and kill those that have not after `grace_s` seconds."""
    until = time.monotonic() + grace_s
    while (left := session_processes(session)) and time.monotonic() < until:
        time.sleep(_POLL_S)
    until = time.monotonic() + _KILL_TIMEOUT_S
    # Until none is found: a process may have started another one just before it was killed.
    while left and time.monotonic() < until:
        for process in left:
            with suppress(psutil.Error):
                process.kill()  # psutil compares the time of creation: a number that was given out again is safe
        time.sleep(_POLL_S / 2)
        left = session_processes(session)


@dataclass
class _Watchdog:
    """A watchdog of this process, started anew where it was killed."""

    session: str
    line: str | None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, where none runs."""
        if self.process is not None and self.process.poll() is None:
            return
        self.close()
        self.process = subprocess.Popen(  # nosec B603 # this very file; the session is a folder that this process made
            [sys.executable, "-P", __file__, self.session, *([self.line] if self.line is not None else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=None if self.line is not None else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C and a terminal that hangs up reach the study alone
            env={name: value for name, value in os.environ.items() if name != MARK},
        )

    def take_leave(self) -> None:
        """Tell it that this process ends in order."""
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # it was killed, or was told before
            self.process.stdin.write(b".")
            self.process.stdin.flush()

    def close(self) -> None:
        """Wait for its end, which comes when this process is gone or says so."""
        if self.process is not None:
            assert self.process.stdin is not None
            with suppress(OSError):
                self.process.stdin.close()
            self.process.wait()


_WATCHDOGS: list[_Watchdog] = []
_STARTING = threading.Lock()


@contextmanager
def watchdog(session: str, line: str | None = None) -> Iterator[None]:
    """Have another process end the session's processes where this one ends without having done so.

    Args:
        session: its name.
        line: printed on standard error where this process ends in the block and has not taken its leave. None: nothing.
    """
    dog = _Watchdog(session, line)
    dog.start()
    _WATCHDOGS.append(dog)
    try:
        yield
    finally:
        with _STARTING:
            _WATCHDOGS.remove(dog)
        dog.take_leave()
        dog.close()


def take_leave() -> None:
    """Tell the watchdogs that this process ends in order, and has said itself what there is to say."""
    for dog in _WATCHDOGS:
        dog.take_leave()


def keep_watched() -> None:
    """Start the watchdogs of this process anew that were killed."""
    with _STARTING:  # threads look at the same time
        for dog in _WATCHDOGS:
            dog.start()


def _watch(session: str, line: str | None) -> None:
    took_leave = sys.stdin.buffer.read()
    if line is not None and not took_leave:
        with suppress(OSError):  # the terminal is gone
            print(line, file=sys.stderr, flush=True)
    end_processes(session)


def _end(session: str, exit_code: int) -> None:
    end_processes(session, grace_s=0)
    shutil.rmtree(session, ignore_errors=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    if sys.argv[2:3] == ["--exit"]:
        _end(sys.argv[1], int(sys.argv[3]))
    else:
        _watch(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
