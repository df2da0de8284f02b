"""Writers and readers of torch.distributed.checkpoint (DCP) for a study's storage, a folder or an object store.

A folder is torch's own case. In an object store, files are streamed up and become visible when they are whole; a read
takes one request a tensor.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from torch.distributed.checkpoint.filesystem import FileSystemBase, FileSystemReader, FileSystemWriter

from qsgd_ray.storage import Folder, ObjectStore, Storage


def writer_at(storage: Storage) -> FileSystemWriter:
    """Return a writer of one checkpoint, which syncs each file to the disk."""
    if isinstance(storage, Folder):
        return FileSystemWriter(storage.path)
    assert isinstance(storage, ObjectStore)
    return _StoreWriter(storage)


def reader_at(storage: Storage) -> FileSystemReader:
    """Return a reader of the checkpoint in this storage."""
    if isinstance(storage, Folder):
        return FileSystemReader(storage.path)
    assert isinstance(storage, ObjectStore)
    return _StoreReader(storage)


# One read is a tensor, or DCP's metadata of all tensors.
_READ_TIMEOUT_S = 600


class _StoreFiles(FileSystemBase):
    """torch's file system on top of pyarrow's. Reads and look-ups end in bounded time; the caller bounds writes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._files = store.request(lambda files, _: files)

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        name = os.fspath(path)
        if mode == "rb":
            with self._store.request(lambda files, _: files.open_input_file(name)) as stream:
                yield _StoreStream(self._store, stream)
        else:
            with self._files.open_output_stream(name) as stream:
                yield stream

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str:
        return f"{os.fspath(path)}/{suffix}"

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        self._files.move(os.fspath(path), os.fspath(new_path))

    def init_path(self, path: str | os.PathLike[str]) -> str:
        return os.fspath(path)

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        if self._store.has_folders:
            self._files.create_dir(os.fspath(path))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, str)

    def exists(self, path: str | os.PathLike[str]) -> bool:
        from pyarrow import fs

        info = self._store.request(lambda files, _: files.get_file_info(os.fspath(path)))
        return bool(info.type != fs.FileType.NotFound)

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        self._files.delete_file(os.fspath(path))


class _StoreStream(io.RawIOBase):
    """A file of the store, read in whole requests of bounded time."""

    def __init__(self, store: ObjectStore, stream: Any) -> None:
        self._store, self._stream = store, stream

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        n_bytes = None if size is None or size < 0 else size
        return bytes(self._store.request(lambda *_: self._stream.read(n_bytes), _READ_TIMEOUT_S))

    def readinto(self, buffer: Any) -> int:
        read = self.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


class _StoreWriter(FileSystemWriter):
    """Writer into an object store, which needs no sync: a file that it has taken is durable."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__("", sync_files=False)
        self.fs = _StoreFiles(store)  # type: ignore[assignment]
        self.path = store.request(lambda _, root: root)


class _StoreReader(FileSystemReader):
    """Reader from an object store; it takes one request a tensor, where torch reads a file in many small pieces."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__("")
        self.fs = _StoreFiles(store)  # type: ignore[assignment]
        self.path = store.request(lambda _, root: root)

    def _slice_file(self, file: Any, sinfo: Any) -> IO[bytes]:
        file.seek(sinfo.offset)
        return io.BytesIO(file.read(sinfo.length))
