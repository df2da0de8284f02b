"""Storage of a study's files: the protocol that folders and object stores share, and their error."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol


class StorageError(OSError):
    """A store that does not answer, or refuses, or a disk that is full or fails; its text is one line.

    Attributes:
        errno: the number of the operating system's error, such as `errno.ENOSPC`; None of an object store.
    """

    def __str__(self) -> str:
        if self.errno is None:
            return super().__str__()
        return f"{self.filename}: {self.strerror}"

    @property
    def is_of_disk(self) -> bool:
        """True where the disk is full or fails, which is no fault of the place that was named."""
        return self.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Storage(Protocol):
    """The files of one study, by name; `/` separates the words of a name, as in `trials/x.parquet`.

    Files are written and read whole: no reader ever sees half of one. What `put` has written is durable. `str()` is the
    folder or the URI. Every method may raise `StorageError`, and StudyError for what is no file of a study.

    Attributes:
        kind: `folder` or `URI`, for messages.
        concurrent_reads: how many files are best read at the same time, >= 1.
    """

    kind: str
    concurrent_reads: int

    def __truediv__(self, name: str) -> Storage:
        """Return the storage below this one, at `name`."""

    def location(self, name: str = "") -> Path | str:
        """Return the path or the URI of the file `name`; of the storage itself where no name is given."""

    def create_folders(self, *folders: str) -> None:
        """Create the storage and the folders in it; do nothing in a store that has no folders."""

    def check_exists(self) -> None:
        """Raise StorageError where nothing can ever lie: in a bucket that does not exist."""

    def put(self, name: str, content: bytes) -> None:
        """Put a whole file into place.

        Args:
            name: the file's name; its folder must exist. A file of this name is replaced.
            content: all of its bytes.
        """

    def read(self, name: str) -> bytes:
        """Return all bytes of a file; FileNotFoundError where there is none."""

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of files, without their folder.

        Args:
            folder: the folder to list; one that does not exist has no files.
            suffix: the end that a name must have, such as `.parquet`. Names that begin with a dot are left out.
        """

    def folders(self) -> list[str]:
        """Return the sorted names of the folders in this storage; those that begin with a dot are left out."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with everything in it; do nothing where there is none."""

    def remove_abandoned(self, *folders: str) -> int:
        """Remove what killed writers left half written, and return how many files that were.

        Args:
            folders: where to look; empty: the storage itself. What a living writer writes stays.
        """
