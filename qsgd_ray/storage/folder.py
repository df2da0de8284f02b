"""Storage in a folder that every process of the study can write."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qsgd_ray.config.errors import one_line
from qsgd_ray.storage._atomic import is_abandoned, replacing
from qsgd_ray.storage.base import StorageError
from qsgd_ray.storage.refusal import refused


@contextmanager
def _as_storage_error(path: Path, missing: type[OSError] | None = None) -> Iterator[None]:
    """Raise the operating system's errors of the block as `StorageError`, and those of a missing file as `missing`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if missing is not None and isinstance(error, FileNotFoundError | NotADirectoryError):
            raise missing(error.errno, error.strerror, os.fspath(path)) from None
        raise StorageError(error.errno or errno.EIO, error.strerror or one_line(error), os.fspath(path)) from None


class Folder:
    """Storage (`Storage`) in a folder of a file system; with several nodes, of one that they share.

    No name and no link leads out of the folder: what lies there may come from elsewhere. The folder itself may be
    reached by links.

    Attributes:
        path: the folder. It need not exist before `create_folders`.

    Example:
        >>> import tempfile
        >>> folder = Folder(Path(tempfile.mkdtemp()))
        >>> folder.create_folders("trials")
        >>> folder.put("trials/a.txt", b"1")
        >>> folder.names("trials", ".txt"), folder.read("trials/a.txt")
        (['a.txt'], b'1')
    """

    kind = "folder"
    concurrent_reads = 1

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name)

    def location(self, name: str = "") -> Path:
        """Return the path of a file; see `Storage`."""
        return self.path / name

    def create_folders(self, *folders: str) -> None:
        """Create this folder and those in it; see `Storage`."""
        with _as_storage_error(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in folders:
                self._inside(folder).mkdir(parents=True, exist_ok=True)

    def check_exists(self) -> None:
        """Do nothing: a folder can always be created; see `Storage`."""

    def put(self, name: str, content: bytes) -> None:
        """Put a whole file into place.

        Args:
            name: the file's name; its folder must exist. A link of this name is replaced, not followed.
            content: all of its bytes.
        """
        path = self._inside(name, follows=False)
        with _as_storage_error(path), replacing(path) as partial:
            partial.write_bytes(content)

    def read(self, name: str) -> bytes:
        """Return all bytes of a file; FileNotFoundError where there is none, StudyError for anything but a file."""
        path = self._inside(name)
        with _as_storage_error(path, missing=FileNotFoundError):
            # A pipe would be waited for.
            number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(number).st_mode):
                os.close(number)
                raise refused(path, "which is no file", "a file")
            with open(number, "rb") as file:
                return file.read()

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of files that are not hidden.

        Args:
            folder: the folder to list; one that does not exist has no files.
            suffix: the end that a name must have.
        """
        names = [name for name in self._listed(folder) if name.endswith(suffix) and not name.startswith(".")]
        return sorted(names)

    def folders(self) -> list[str]:
        """Return the sorted names of the folders in this one that are not hidden; links are left out."""
        paths = [self.path / name for name in self._listed("") if not name.startswith(".")]
        return sorted(path.name for path in paths if path.is_dir() and not path.is_symlink())

    def _listed(self, folder: str) -> list[str]:
        path = self._inside(folder)
        try:
            with _as_storage_error(path, missing=FileNotFoundError):
                return os.listdir(path)
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with everything in it; do nothing where there is none. Of a link, the link."""
        target = self._inside(name, follows=False)
        with _as_storage_error(target):
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def remove_abandoned(self, *folders: str) -> int:
        """Remove what killed writers left half written, and return how many files that were.

        Args:
            folders: where to look; empty: this folder itself. What a living writer writes stays.
        """
        n_removed = 0
        for folder in folders:
            for name in self._listed(folder):
                if not name.startswith("."):
                    continue
                path = self._inside(folder) / name
                with suppress(FileNotFoundError):  # its writer has put it into place
                    if is_abandoned(name, time.time() - path.lstat().st_mtime):
                        self.remove(f"{folder}/{name}" if folder else name)
                        n_removed += 1
        return n_removed

    def writable(self, name: str) -> Path:
        """Return the path of a file or folder that another library writes, once that writes nothing elsewhere.

        Args:
            name: its name below this folder; it need not exist.

        Raises:
            StudyError: it is a link that leads out of this folder or to nothing, or a pipe or a device.
        """
        path = self._inside(name)
        if path.exists() and not path.is_file() and not path.is_dir():
            raise refused(path, "which is no file", "a file")
        return path

    def _inside(self, name: str, follows: bool = True) -> Path:
        """Return the path of a name, once neither it nor a link on the way to it leads out of this folder.

        Args:
            name: words between slashes; empty: this folder itself.
            follows: the last word is followed too, where it is a link.

        Raises:
            StudyError: it leads out, or a link leads nowhere.
        """
        path = os.fspath(self.path)
        words = name.split("/") if name else []
        for index, word in enumerate(words):
            if word in ("", "..") or "\0" in word:
                raise refused(self.path, f"and in it the name {name!r}", "names of files below it")
            path = os.path.join(path, word)
            if os.path.islink(path) and (follows or index < len(words) - 1):
                root, real = os.path.realpath(self.path), os.path.realpath(path)
                if not os.path.exists(real):
                    raise refused(path, "a link that leads to no file", "a file")
                if os.path.commonpath([root, real]) != root:
                    raise refused(path, "a link that leads out of the folder", f"what lies in {self.path} itself")
        return Path(path)
