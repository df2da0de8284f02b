"""Lease on a study's storage: one process at a time runs a study into it; a second one is refused in one line.

The holder's name lies beside the rows and is renewed while it runs. On the holder's own machine a dead process is known
at once, by its number and its start. Of another machine's, only silence tells: a lease that was not renewed for
`Lease.silent_s` seconds, as the one who waits for it observes, is taken over, so no clocks are compared.

In a folder, processes look and write one after the other, under a lock of the folder. pyarrow offers no conditional
write, and some file systems no lock: there a process writes its name and reads it again after `Lease.settle_s`
seconds, and the last writer has it. Two that start within the same second may then both go on, where the store takes
longer than that to show what it was given.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import ClassVar

from qsgd_ray.config import StudyError
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.storage.base import Storage, StorageError
from qsgd_ray.storage.folder import Folder
from qsgd_ray.storage.process_id import ProcessId, _this_process
from qsgd_ray.storage.refusal import refused, shown

_FILE = ".driver.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Owner:
    """The process that a lease is held by, as its file says.

    Attributes:
        token: of this holding, never used again.
        host: name of its machine.
        machine: see `ProcessId`.
        pid: see `ProcessId`.
        started: see `ProcessId`.
        since: when it took the lease, ISO 8601 in UTC.
        beat: counts the renewals.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: int
    since: str
    beat: int

    def is_dead(self) -> bool | None:
        """Return whether the process has ended; None where it is another machine's."""
        return ProcessId(self.machine, self.pid, self.started).is_dead()


@dataclass(frozen=True)
class Holder:
    """The process that holds a storage, as another one sees it.

    Attributes:
        host: name of its machine.
        pid: its number there.
        since: when it took the lease, ISO 8601 in UTC.
        lives: True or False where that is known; None: it is another machine's, and was silent while it was watched.
    """

    host: str
    pid: int
    since: str
    lives: bool | None


def holder(storage: Storage, watch_s: float = 0.0) -> Holder | None:
    """Return the process that runs a study into a storage, without writing anything; None where there is none.

    Args:
        storage: of the study.
        watch_s: how long a process of another machine is watched for a renewal, which comes every `Lease.beat_s`
            seconds; 0: it is not watched.

    Raises:
        StorageError: the storage cannot be read.
    """
    first = _read_owner(storage)
    if first is None:
        return None
    dead = first.is_dead()
    lives = None if dead is None else not dead
    began = time.monotonic()
    while lives is None and time.monotonic() - began < watch_s:
        time.sleep(min(1.0, watch_s / 10))
        now = _read_owner(storage)
        if now is None:
            return None
        if now != first:
            lives = True
    return Holder(first.host, first.pid, first.since, lives)


@contextmanager
def held(storage: Storage) -> Iterator[Lease]:
    """Create a storage where there is none, and hold its lease in the block.

    Raises:
        StudyError: a living process has it, or the storage cannot be written; one line.
        StorageError: the disk is full or fails.
    """
    lease = Lease(storage)
    with refused_unless_written(storage):
        storage.create_folders()
        storage.check_exists()
        lease.acquire()
    with lease:
        yield lease


@contextmanager
def refused_unless_written(storage: Storage) -> Iterator[None]:
    """Raise StudyError where a storage cannot be written in the block; a full disk is no fault of the place."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) and error.is_of_disk:
            raise
        raise StudyError(
            f"--storage: got {storage.location()}; allowed: a {storage.kind} that can be written "
            f"({error.strerror or error})"
        ) from None


class Lease:
    """Lease on a storage, held inside a `with` block and renewed by a thread.

    Attributes:
        beat_s: seconds between renewals, > 0.
        silent_s: seconds without a renewal after which another machine's holder is taken for dead, > `beat_s`.
        settle_s: seconds after which a name that was written without a lock is read again, > 0.

    Raises:
        StudyError: a living process has it; one line with its host, its process and the time it took it.
        StorageError: the storage cannot be read or written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Folder(Path(tempfile.mkdtemp()))
        >>> with Lease(folder):
        ...     try:
        ...         with Lease(folder):
        ...             pass
        ...     except StudyError as error:
        ...         print("refused")
        refused
    """

    beat_s: ClassVar[float] = 10.0
    silent_s: ClassVar[float] = 45.0
    settle_s: ClassVar[float] = 2.0

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        me = _this_process()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._owner = _Owner(uuid.uuid4().hex, socket.gethostname(), me.machine, me.pid, me.started, since, 0)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._taken_by: _Owner | None = None

    def __enter__(self) -> Lease:
        if self._thread is None:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lease, and renew it from now on; the storage must exist."""
        with self._one_at_a_time() as locked:
            holder = self._read()
            if holder is not None and self._lives(holder):
                raise self._refusal(holder)
            self._write()
        if not locked:
            time.sleep(self.settle_s)
            holder = self._read()
            if holder is not None and holder.token != self._owner.token:
                raise self._refusal(holder)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lease back, where it is still this process's; do nothing the second time, or in a forked process."""
        if self._thread is None or os.getpid() != self._owner.pid:
            return
        self._ended.set()
        self._thread.join(timeout=1.0)  # it may wait for a silent store
        self._thread = None
        with suppress(StorageError, StudyError), self._one_at_a_time():  # it is silent from here on
            holder = self._read()
            if holder is not None and holder.token == self._owner.token:
                self._storage.remove(_FILE)

    def check(self) -> None:
        """Raise StudyError where another process has taken the lease over, as this one was silent for too long."""
        if self._taken_by is not None:
            raise self._refusal(self._taken_by)

    def _renew(self) -> None:
        while not self._ended.wait(self.beat_s):
            try:
                with self._one_at_a_time():
                    holder = self._read()
                    if holder is not None and holder.token != self._owner.token:
                        self._taken_by = holder
                        _log.warning("%s", self._refusal(holder))
                        return
                    self._write()
            except (StorageError, StudyError) as error:  # the next beat tries again
                _log.info("%s: the lease was not renewed: %s", self._storage, error)

    def _lives(self, holder: _Owner) -> bool:
        """Return True where a holder lives; of another machine's, once it has renewed, or False after its silence."""
        dead = holder.is_dead()
        if dead is not None:
            return not dead
        began = time.monotonic()
        while time.monotonic() - began < self.silent_s:
            time.sleep(min(1.0, self.silent_s / 10))
            now = self._read()
            if now is None:
                return False
            if now != holder:
                return True
        return False

    def _read(self) -> _Owner | None:
        return _read_owner(self._storage)

    def _write(self) -> None:
        self._owner = _Owner(**asdict(self._owner) | {"beat": self._owner.beat + 1})
        self._storage.put(_FILE, json.dumps(asdict(self._owner)).encode())

    def _refusal(self, holder: _Owner) -> StudyError:
        problem = f"in use by process {holder.pid} on {shown(holder.host, 30)} since {shown(holder.since, 30)}"
        return refused(self._storage, problem, "a folder of its own, or the same command after that", "--storage")

    @contextmanager
    def _one_at_a_time(self) -> Iterator[bool]:
        """Hold the folder's lock in the block; yield False, without one, where there is none to be had."""
        if not isinstance(self._storage, Folder):
            yield False
            return
        number = -1
        try:
            number = os.open(self._storage.path, os.O_RDONLY)
            fcntl.flock(number, fcntl.LOCK_EX)
            locked = True
        except OSError:  # some network file systems lock no folders
            locked = False
        try:
            yield locked
        finally:
            if number >= 0:
                os.close(number)


def _read_owner(storage: Storage) -> _Owner | None:
    """Return the holder; None where there is none, or a file that no process of this package has written."""
    try:
        tree = parse_json(storage.read(_FILE))
    except FileNotFoundError:
        return None
    except StudyError:
        raise
    except ValueError:
        return None
    kinds = _Owner.__annotations__
    if not isinstance(tree, dict) or tree.keys() != kinds.keys():
        return None
    whole = ("pid", "started", "beat")
    if any(type(value) is not (int if name in whole else str) for name, value in tree.items()):
        return None
    return _Owner(**tree)
