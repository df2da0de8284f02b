"""Make a folder for the files of a private Ray, and remove those that killed owners left behind.

A lock on the folder says that its owner lives. The system releases it however the owner ends. So no process number
that is given out again, no other container and no clock that jumps can mislead.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "qsgd_ray-"
# Of a socket's path, 104 bytes on macOS, Ray takes 64 below the folder that it is given, and that folder's name takes 2
# and mkdtemp's 18.
_MAX_PATH_BYTES = 19


@contextmanager
def scratch_folder(place: Path | None = None) -> Iterator[Path]:
    """Make a new folder below `place`, and remove it when the block is left."""
    place = place or _default_parent()
    _clear(place)
    folder, lock = _locked_folder(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _default_parent() -> Path:
    usual = tempfile.gettempdir()
    return Path(usual if len(os.fsencode(usual)) <= _MAX_PATH_BYTES else "/tmp")  # nosec B108 # for mkdtemp


def _clear(place: Path) -> None:
    """Remove the folders below `place` whose owner has ended."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is another user's, its owner lives, or another process is removing it
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # What Ray still writes while it dies may keep a part for the next time.
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _locked_folder(place: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks: no other process can lock it either, so it stays
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)
        # Another process removed it between its creation and its lock.
