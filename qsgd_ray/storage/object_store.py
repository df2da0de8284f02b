"""Storage in an object store: S3, Google Cloud Storage and the other stores that pyarrow knows, by URI.

S3 and GCS take a file in one request; in the others it is written beside its place and moved into it, as in a folder.
Endpoint, region and credentials of a store come from where its own tools look for them (AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS ...), in every process anew.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import PurePosixPath
from typing import Any, ClassVar, TypeVar
from urllib.parse import SplitResult, quote

from qsgd_ray.config.errors import one_line
from qsgd_ray.storage._atomic import hidden_sibling, is_abandoned
from qsgd_ray.storage.base import StorageError

_THREAD_NAME = "request to a store"

T = TypeVar("T")


def has_open_request() -> bool:
    """Return True while a request that was given up may still be answered; the process would wait for it at its end."""
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())


class ObjectStore:
    """Storage (`Storage`) below a URI. Every operation answers in bounded time or raises `StorageError`.

    A copy in another process connects by itself, with that process's credentials; none are kept here.

    Attributes:
        first_answer_timeout_s: seconds that the first request waits, > 0.
        answer_timeout_s: seconds that later requests wait, > 0.
        bucket_schemes: schemes of stores that take a file whole by themselves, each with options of its client beside
            those in the URI.
        renaming_schemes: schemes of stores with folders, in which a file is renamed into place.
    """

    kind = "URI"
    concurrent_reads = 16
    # pyarrow's S3 client waits forever for a server that takes the connection and is silent (26.0.1, 2026-11-23).
    first_answer_timeout_s: ClassVar[float] = 20
    answer_timeout_s: ClassVar[float] = 60
    # S3 in one PUT, GCS without its 15 minutes of retries.
    bucket_schemes: ClassVar[dict[str, dict[str, str]]] = {
        "s3": {"allow_delayed_open": "true"},
        "gs": {"retry_limit_seconds": "10"},
        "gcs": {"retry_limit_seconds": "10"},
    }
    renaming_schemes: ClassVar[tuple[str, ...]] = ("abfs", "abfss", "hdfs", "viewfs")

    def __init__(self, uri: SplitResult) -> None:
        self._uri = uri._replace(path=uri.path.rstrip("/"))
        self._connection: tuple[Any, str] | None = None
        self._answered = False

    def __getstate__(self) -> dict[str, Any]:
        return {"_uri": self._uri, "_connection": None, "_answered": False}

    def __str__(self) -> str:
        return self._uri.geturl()

    def __truediv__(self, name: str) -> ObjectStore:
        return ObjectStore(self._uri._replace(path=f"{self._uri.path}/{quote(name)}"))

    def location(self, name: str = "") -> str:
        """Return the URI of a file; see `Storage`."""
        return str(self / name) if name else str(self)

    def create_folders(self, *folders: str) -> None:
        """Do nothing: a prefix exists as soon as a file has it, and `put` creates folders where a store has them."""

    def check_exists(self) -> None:
        """Raise StorageError where the bucket does not exist."""
        if self._uri.scheme not in self.bucket_schemes:
            return

        from pyarrow import fs

        def bucket(files: Any, root: str) -> Any:
            return files.get_file_info(root.split("/")[0])

        if self.request(bucket).type == fs.FileType.NotFound:
            raise StorageError(f"there is no bucket {self._uri.hostname}")

    def put(self, name: str, content: bytes) -> None:
        """Put a whole file into place.

        Args:
            name: the file's name below this storage.
            content: all of its bytes.
        """

        def write(files: Any, root: str) -> None:
            target = PurePosixPath(root, name)
            written = hidden_sibling(target) if self.has_folders else target
            if self.has_folders:
                files.create_dir(str(target.parent))
            # With the content at hand, nothing can fail between opening and closing that would publish a half.
            with files.open_output_stream(str(written)) as stream:
                stream.write(content)
            if self.has_folders:
                files.move(str(written), str(target))

        self.request(write)

    def read(self, name: str) -> bytes:
        """Return all bytes of a file; FileNotFoundError where there is none."""

        def read(files: Any, root: str) -> bytes | None:
            try:
                with files.open_input_stream(str(PurePosixPath(root, name))) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

        content = self.request(read)
        if content is None:
            raise FileNotFoundError(self.location(name))
        return content

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the sorted names of files that are not hidden.

        Args:
            folder: the folder or prefix to list; one that does not exist has no files.
            suffix: the end that a name must have.
        """
        return [name for name in self._listed(folder, of_files=True) if name.endswith(suffix)]

    def folders(self) -> list[str]:
        """Return the sorted names of the prefixes right below this one that are not hidden."""
        return self._listed("", of_files=False)

    def _listed(self, folder: str, of_files: bool) -> list[str]:
        from pyarrow import fs

        def listed(files: Any, root: str) -> list[str]:
            inside = fs.FileSelector(str(PurePosixPath(root, folder)), allow_not_found=True)
            return [file.base_name for file in files.get_file_info(inside) if file.is_file == of_files]

        return sorted(name for name in self.request(listed) if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with everything in it; do nothing where there is none."""
        from pyarrow import fs

        def remove(files: Any, root: str) -> None:
            target = str(PurePosixPath(root, name))
            match files.get_file_info(target).type:
                case fs.FileType.File:
                    files.delete_file(target)
                case fs.FileType.Directory:
                    files.delete_dir(target)

        self.request(remove)

    def remove_abandoned(self, *folders: str) -> int:
        """Remove what killed writers left half written, and return how many files; 0 where a store takes files whole.

        Args:
            folders: where to look; empty: the storage itself. What a living writer writes stays.
        """
        if not self.has_folders:
            return 0

        def remove(files: Any, root: str) -> int:
            from pyarrow import fs

            n_removed = 0
            for folder in folders:
                inside = fs.FileSelector(str(PurePosixPath(root, folder)), allow_not_found=True)
                for file in files.get_file_info(inside):
                    age_s = time.time() - (file.mtime_ns or 0) / 1e9
                    if file.is_file and is_abandoned(file.base_name, age_s):
                        files.delete_file(file.path)
                        n_removed += 1
            return n_removed

        return self.request(remove)

    @property
    def has_folders(self) -> bool:
        """True where a folder must exist before a file can be in it."""
        return self._uri.scheme not in self.bucket_schemes

    def request(self, call: Callable[[Any, str], T], limit_s: float | None = None) -> T:
        """Return the result of a call on the store's file system, in bounded time.

        Args:
            call: function of the pyarrow file system and of this storage's path in it. It runs in a thread of its own,
                which is left behind where the store stays silent.
            limit_s: seconds to wait, > 0. None: `first_answer_timeout_s` for the first request, then
                `answer_timeout_s`.

        Raises:
            StorageError: the store refuses, or does not answer within the limit.
        """
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(call(*self._connect()))
            except Exception as error:
                answer.set_exception(error)

        limit = limit_s or (self.answer_timeout_s if self._answered else self.first_answer_timeout_s)
        threading.Thread(target=work, name=_THREAD_NAME, daemon=True).start()
        try:
            result = answer.result(limit)
        except TimeoutError:
            raise StorageError(f"{self}: no answer within {limit} s") from None
        except (OSError, ValueError, NotImplementedError) as error:  # ArrowInvalid is a ValueError
            raise StorageError(_reason(error)) from None
        self._answered = True
        return result

    def _connect(self) -> tuple[Any, str]:
        if self._connection is None:
            from pyarrow import fs

            given = {word.partition("=")[0] for word in self._uri.query.split("&")}
            options = [f"{k}={v}" for k, v in self.bucket_schemes.get(self._uri.scheme, {}).items() if k not in given]
            query = "&".join([*filter(None, [self._uri.query]), *options])
            # By URI: pyarrow reads AWS_ENDPOINT_URL there, and not where an S3FileSystem is made by its name.
            self._connection = fs.FileSystem.from_uri(self._uri._replace(query=query).geturl())
        return self._connection


def _reason(error: Exception) -> str:
    """Return why the store refused, without the number of the request and what Google says of its own retries."""
    text = re.sub(r"\s+\(Request ID: [^)]*\)", "", str(error))
    google = re.match(
        r"google::cloud::Status\((\w+: )(?:.*? with a last message of )?(.*?)(?: error_info=.*)?\)?$", text
    )
    return one_line("".join(google.groups()) if google else text, limit=180)
