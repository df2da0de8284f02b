"""Where a study's files lie: a folder, or an object store by its URI. Whole files in, whole files out.

Nobody ever sees half a file. In a folder it is written beside its place and moved into it; S3 and GCS take it in one
request; the other stores that pyarrow knows are moved in as a folder is. Endpoint, region and credentials of a store
come from where its own tools look for them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS ...),
in every process anew.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line

# pyarrow's S3 client waits forever for a server that takes the connection and is silent (26.0.1, 2026-11-23).
FIRST_ANSWER_TIMEOUT_S = 20
ANSWER_TIMEOUT_S = 60
ASKING = "asks a store"

# What takes a file whole by itself, and what is asked of its client beside what the URI says: S3 in one PUT, GCS
# without its 15 minutes of retries.
PUT_WHOLE = {
    "s3": {"allow_delayed_open": "true"},
    "gs": {"retry_limit_seconds": "10"},
    "gcs": {"retry_limit_seconds": "10"},
}
MOVED = ("abfs", "abfss", "hdfs", "viewfs")
# Two letters at least: C:/ is a drive.
URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")

T = TypeVar("T")


class StorageError(OSError):
    """A store that does not answer, or refuses, in one line."""


class Storage(Protocol):
    """The files of one study by name, `/` between the words of a name. `str()` is what a person calls it.

    Everything may raise OSError.
    """

    kind: str  # a folder or a URI, for messages
    reads_at_once: int

    def __truediv__(self, name: str) -> Storage:
        """The place `name` below this one."""

    def place(self, name: str = "") -> Path | str:
        """Where the file `name` is found from outside: a path or a URI."""

    def make_ready(self, *folders: str) -> None:
        """Make the place and the folders in it, where it is a thing that has folders."""

    def require(self) -> None:
        """Raise where nothing could ever be: a bucket that does not exist."""

    def put(self, name: str, content: bytes) -> None:
        """A whole file into place; one that is there is replaced."""

    def read(self, name: str) -> bytes:
        """A whole file; FileNotFoundError where there is none."""

    def names(self, folder: str, suffix: str) -> list[str]:
        """The names of the files in `folder` that end in `suffix`, sorted; hidden ones left out."""

    def remove(self, name: str) -> None:
        """A file, or a folder with all that is in it; nothing, where there is none."""


def is_hanging() -> bool:
    """Whether a store was given up that still may answer: the end of this process would then wait for it."""
    return any(thread.name == ASKING for thread in threading.enumerate())


def storage_at(where: str | Path | Storage, option: str = "--storage") -> Storage:
    """The storage that a word names; StudyError, which blames `option`, for one that names none."""
    if isinstance(where, Path):
        return Folder(where)
    if not isinstance(where, str):
        return where
    uri = URI.match(where)
    if uri is None:
        return Folder(Path(where))
    scheme = uri[1].lower()
    try:
        parts = urlsplit(where)
        secret = parts.password
    except ValueError as error:  # an IPv6 address that is none
        raise StudyError(f"{option}: got {where}; allowed: a folder or a URI ({error})") from None
    if secret is not None:
        raise StudyError(
            f"{option}: got {scheme}://... with a secret in it; allowed: a URI without, as it is kept and shown "
            "(credentials come from the environment, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
    if scheme == "file":
        return Folder(Path(unquote(parts.path)))
    if scheme not in (*PUT_WHOLE, *MOVED):
        raise StudyError(
            f"{option}: got {where}; allowed: a folder, or a URI that begins with one of "
            f"{', '.join(f'{known}://' for known in ('file', *PUT_WHOLE, *MOVED))}"
        )
    if not parts.netloc and scheme in PUT_WHOLE:
        raise StudyError(f"{option}: got {where}; allowed: {scheme}://BUCKET/PREFIX")
    return ObjectStore(parts)


class Folder:
    """A folder that every process of the study can write."""

    kind = "folder"
    reads_at_once = 1

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name)

    def place(self, name: str = "") -> Path:
        """See `Storage`."""
        return self.path / name

    def make_ready(self, *folders: str) -> None:
        """See `Storage`."""
        for folder in ("", *folders):
            (self.path / folder).mkdir(parents=True, exist_ok=True)

    def require(self) -> None:
        """See `Storage`."""

    def put(self, name: str, content: bytes) -> None:
        """See `Storage`."""
        target = self.path / name
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        partial.write_bytes(content)
        os.replace(partial, target)

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        return (self.path / name).read_bytes()

    def names(self, folder: str, suffix: str) -> list[str]:
        """See `Storage`."""
        return sorted(file.name for file in (self.path / folder).glob(f"[!.]*{suffix}"))

    def remove(self, name: str) -> None:
        """See `Storage`."""
        target = self.path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


class ObjectStore:
    """What lies below a URI. Every operation answers in bounded time or raises `StorageError`."""

    kind = "URI"
    reads_at_once = 16

    def __init__(self, uri: SplitResult) -> None:
        self._uri = uri._replace(path=uri.path.rstrip("/"))
        self._connected: tuple[Any, str] | None = None
        self._answered = False

    def __getstate__(self) -> dict[str, Any]:
        # Another process connects by itself, with the credentials that it has.
        return {"_uri": self._uri, "_connected": None, "_answered": False}

    def __str__(self) -> str:
        return self._uri.geturl()

    def __truediv__(self, name: str) -> ObjectStore:
        return ObjectStore(self._uri._replace(path=f"{self._uri.path}/{quote(name)}"))

    def place(self, name: str = "") -> str:
        """See `Storage`."""
        return str(self / name) if name else str(self)

    def make_ready(self, *folders: str) -> None:
        """See `Storage`: a prefix is there as soon as anything has it, and `put` makes what folders there are."""

    def require(self) -> None:
        """See `Storage`."""
        if self._uri.scheme not in PUT_WHOLE:
            return

        from pyarrow import fs

        def bucket(files: Any, root: str) -> Any:
            return files.get_file_info(root.split("/")[0])

        if self.ask(bucket).type == fs.FileType.NotFound:
            raise StorageError(f"there is no bucket {self._uri.hostname}")

    def put(self, name: str, content: bytes) -> None:
        """See `Storage`."""

        def write(files: Any, root: str) -> None:
            target = PurePosixPath(root, name)
            partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            whole = self._uri.scheme in PUT_WHOLE
            if not whole:
                files.create_dir(str(target.parent))
            # With the content at hand, nothing can fail between opening and closing that would publish a half.
            with files.open_output_stream(str(target if whole else partial)) as stream:
                stream.write(content)
            if not whole:
                files.move(str(partial), str(target))

        self.ask(write)

    def read(self, name: str) -> bytes:
        """See `Storage`."""

        def read(files: Any, root: str) -> bytes | None:
            try:
                with files.open_input_stream(str(PurePosixPath(root, name))) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

        content = self.ask(read)
        if content is None:
            raise FileNotFoundError(self.place(name))
        return content

    def names(self, folder: str, suffix: str) -> list[str]:
        """See `Storage`."""
        from pyarrow import fs

        def listed(files: Any, root: str) -> list[str]:
            inside = fs.FileSelector(str(PurePosixPath(root, folder)), allow_not_found=True)
            return [file.base_name for file in files.get_file_info(inside) if file.is_file]

        return sorted(name for name in self.ask(listed) if name.endswith(suffix) and not name.startswith("."))

    def remove(self, name: str) -> None:
        """See `Storage`."""
        from pyarrow import fs

        def remove(files: Any, root: str) -> None:
            target = str(PurePosixPath(root, name))
            match files.get_file_info(target).type:
                case fs.FileType.File:
                    files.delete_file(target)
                case fs.FileType.Directory:
                    files.delete_dir(target)

        self.ask(remove)

    @property
    def has_folders(self) -> bool:
        """Whether a folder must be there before a file can be in it."""
        return self._uri.scheme not in PUT_WHOLE

    def ask(self, question: Callable[[Any, str], T], limit_s: float | None = None) -> T:
        """The answer of `question(filesystem, path of this place in it)`, in bounded time; else StorageError."""
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(question(*self._connect()))
            except Exception as error:
                answer.set_exception(error)

        limit = limit_s or (ANSWER_TIMEOUT_S if self._answered else FIRST_ANSWER_TIMEOUT_S)
        threading.Thread(target=work, name=ASKING, daemon=True).start()
        try:
            found = answer.result(limit)
        except TimeoutError:
            raise StorageError(f"{self}: no answer within {limit} s") from None
        except (OSError, ValueError, NotImplementedError) as error:  # ArrowInvalid is a ValueError
            raise StorageError(_reason(error)) from None
        self._answered = True
        return found

    def _connect(self) -> tuple[Any, str]:
        if self._connected is None:
            from pyarrow import fs

            asked = {word.partition("=")[0] for word in self._uri.query.split("&")}
            ours = [f"{k}={v}" for k, v in PUT_WHOLE.get(self._uri.scheme, {}).items() if k not in asked]
            query = "&".join([*filter(None, [self._uri.query]), *ours])
            # By URI: pyarrow reads AWS_ENDPOINT_URL there, and not where an S3FileSystem is made by its name.
            self._connected = fs.FileSystem.from_uri(self._uri._replace(query=query).geturl())
        return self._connected


def _reason(error: Exception) -> str:
    """Return what went wrong, without the number of the request."""
    return one_line(re.sub(r"\s+\(Request ID: [^)]*\)", "", str(error)), limit=300)
