"""Storage in a folder that every process of the study can write."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from qsgd_ray.storage._atomic import replacing
from qsgd_ray.storage.refusal import refused


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
        with replacing(self._inside(name, follows=False)) as partial:
            partial.write_bytes(content)

    def read(self, name: str) -> bytes:
        """Return all bytes of a file; FileNotFoundError where there is none, StudyError for anything but a file."""
        path = self._inside(name)
        try:
            # A pipe would be waited for.
            number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except NotADirectoryError:
            raise FileNotFoundError(path) from None
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
        try:
            names = os.listdir(self._inside(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with everything in it; do nothing where there is none. Of a link, the link."""
        target = self._inside(name, follows=False)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

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
