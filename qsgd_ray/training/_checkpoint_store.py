"""Files of a checkpoint in a study's storage, a folder or an object store: bytes are streamed in, ranges are read back.

In a folder, a file is synced to the disk. In an object store, files are streamed up and become visible when they are
whole; a read takes one request a range. Every request ends in bounded time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qsgd_ray.storage import Folder, ObjectStore, Storage, StorageError

# One request takes a tensor.
_REQUEST_TIMEOUT_S = 600

Bytes = bytes | memoryview
# Fills the buffer with the bytes that begin at the offset.
ReadInto = Callable[[int, memoryview], None]


def write_file(storage: Storage, name: str, parts: Iterable[Bytes]) -> None:
    """Write a file part by part, and return when it is durable.

    Args:
        storage: the checkpoint's; it need not exist.
        name: the file's name, without a folder. A file of this name is replaced, and a link of this name too: what it
            points to stays as it is.
        parts: the file's bytes, in their order.

    Raises:
        OSError: it cannot be written; what was written of it may stay.
    """
    if isinstance(storage, Folder):
        storage.create_folders()
        path = storage.path / name
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        return
    assert isinstance(storage, ObjectStore)
    stream = storage.request(lambda files, root: _output_stream(storage, files, root, name))
    try:
        for part in parts:
            storage.request(lambda *_, part=part: stream.write(part), _REQUEST_TIMEOUT_S)
    except BaseException:
        with suppress(OSError):
            storage.request(lambda *_: stream.close(), _REQUEST_TIMEOUT_S)
        raise
    storage.request(lambda *_: stream.close(), _REQUEST_TIMEOUT_S)


def files_below(storage: Storage, folder: str, suffix: str) -> list[str]:
    """Return the sorted names, below the storage, of the files in the folders of a folder.

    Args:
        storage: the study's.
        folder: the folder whose folders are listed; one that does not exist has none.
        suffix: the end that a name must have.
    """
    if isinstance(storage, Folder):
        found = (storage.path / folder).glob(f"*/*{suffix}")
        return sorted(path.relative_to(storage.path).as_posix() for path in found)
    assert isinstance(storage, ObjectStore)
    from pyarrow import fs

    def listed(files: Any, root: str) -> list[str]:
        inside = fs.FileSelector(f"{root}/{folder}", allow_not_found=True, recursive=True)
        paths = [file.path.removeprefix(f"{root}/") for file in files.get_file_info(inside) if file.is_file]
        return sorted(path for path in paths if path.endswith(suffix) and path.count("/") == folder.count("/") + 2)

    return storage.request(listed)


def _output_stream(store: ObjectStore, files: Any, root: str, name: str) -> Any:
    if store.has_folders:
        files.create_dir(root)
    return files.open_output_stream(f"{root}/{name}")


@contextmanager
def reading(storage: Storage, name: str, size: int) -> Iterator[ReadInto]:
    """Open a file and yield a function that reads ranges of it.

    Args:
        storage: the checkpoint's.
        name: the file's name, without a folder.
        size: its size in bytes.

    Raises:
        StorageError: it is no regular file, has another size, or a range of it cannot be read.
        FileNotFoundError: there is none.
    """
    if isinstance(storage, Folder):
        path = storage.path / name
        found = path.lstat()  # a link may lead out of the checkpoint, and a pipe has no end
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"{name}: got no regular file; allowed: a file")
        _check_size(name, found.st_size, size)
        with path.open("rb", buffering=0) as file:

            def read_into(offset: int, buffer: memoryview) -> None:
                file.seek(offset)
                while buffer:
                    n_read = file.readinto(buffer)
                    _check_whole(name, n_read > 0)
                    buffer = buffer[n_read:]

            yield read_into
        return
    assert isinstance(storage, ObjectStore)
    with storage.request(lambda files, root: files.open_input_file(f"{root}/{name}")) as stream:
        _check_size(name, storage.request(lambda *_: stream.size()), size)

        def request_into(offset: int, buffer: memoryview) -> None:
            content = storage.request(lambda *_: stream.read_at(len(buffer), offset), _REQUEST_TIMEOUT_S)
            _check_whole(name, len(content) == len(buffer))
            buffer[:] = content

        yield request_into


def _check_size(name: str, size: int, expected: int) -> None:
    if size != expected:
        raise StorageError(f"{name}: got {size} bytes; allowed: {expected}, as it was written")


def _check_whole(name: str, whole: bool) -> None:
    if not whole:
        raise StorageError(f"{name}: it ends before its last tensor")
