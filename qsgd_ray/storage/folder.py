"""Storage in a folder that every process of the study can write."""

from __future__ import annotations

import shutil
from pathlib import Path

from qsgd_ray.storage._atomic import replacing


class Folder:
    """Storage (`Storage`) in a folder of a file system; with several nodes, of one that they share.

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
        for folder in ("", *folders):
            (self.path / folder).mkdir(parents=True, exist_ok=True)

    def check_exists(self) -> None:
        """Do nothing: a folder can always be created; see `Storage`."""

    def put(self, name: str, content: bytes) -> None:
        """Put a whole file into place.

        Args:
            name: the file's name; its folder must exist.
            content: all of its bytes.
        """
        with replacing(self.path / name) as partial:
            partial.write_bytes(content)

    def read(self, name: str) -> bytes:
        """Return all bytes of a file; FileNotFoundError where there is none."""
        return (self.path / name).read_bytes()

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of files that are not hidden.

        Args:
            folder: the folder to list; one that does not exist has no files.
            suffix: the end that a name must have.
        """
        return sorted(file.name for file in (self.path / folder).glob(f"[!.]*{suffix}"))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with everything in it; do nothing where there is none."""
        target = self.path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
