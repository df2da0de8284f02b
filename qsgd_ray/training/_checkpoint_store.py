"""Where torch.distributed.checkpoint writes and reads: a place of a study's storage in, its writer and reader out.

A folder is torch's own case. In an object store, files are streamed up and become visible when they are whole; what is
read comes in one request a tensor.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from torch.distributed.checkpoint.filesystem import FileSystemBase, FileSystemReader, FileSystemWriter

from qsgd_ray.storage import Folder, ObjectStore, Storage


def writer_at(place: Storage) -> FileSystemWriter:
    """A writer of one checkpoint, each file on the disk before it counts."""
    if isinstance(place, Folder):
        return FileSystemWriter(place.path)
    assert isinstance(place, ObjectStore)
    return StoreWriter(place)


def reader_at(place: Storage) -> FileSystemReader:
    """A reader of the checkpoint there."""
    if isinstance(place, Folder):
        return FileSystemReader(place.path)
    assert isinstance(place, ObjectStore)
    return StoreReader(place)


# What is read at once is a tensor, or what DCP notes of them all.
READ_TIMEOUT_S = 600


class StoreFiles(FileSystemBase):
    """torch's file system on top of pyarrow's. Reading and looking answer in bounded time; who writes bounds that."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._files = store.request(lambda files, _: files)

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        place = os.fspath(path)
        if mode == "rb":
            with self._store.request(lambda files, _: files.open_input_file(place)) as stream:
                yield StoreStream(self._store, stream)
        else:
            with self._files.open_output_stream(place) as stream:
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

        found = self._store.request(lambda files, _: files.get_file_info(os.fspath(path)))
        return bool(found.type != fs.FileType.NotFound)

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        self._files.delete_file(os.fspath(path))


class StoreStream(io.RawIOBase):
    """A file of the store, read in whole requests of bounded time."""

    def __init__(self, store: ObjectStore, stream: Any) -> None:
        self._store, self._stream = store, stream

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        n_bytes = None if size is None or size < 0 else size
        return bytes(self._store.request(lambda *_: self._stream.read(n_bytes), READ_TIMEOUT_S))

    def readinto(self, buffer: Any) -> int:
        read = self.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


class StoreWriter(FileSystemWriter):
    """A store keeps what it has taken: there is nothing to sync."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__("", sync_files=False)
        self.fs = StoreFiles(store)  # type: ignore[assignment]
        self.path = store.request(lambda _, root: root)


class StoreReader(FileSystemReader):
    """torch reads a tensor's file bit by bit, each of which would be a request."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__("")
        self.fs = StoreFiles(store)  # type: ignore[assignment]
        self.path = store.request(lambda _, root: root)

    def _slice_file(self, file: Any, sinfo: Any) -> IO[bytes]:
        file.seek(sinfo.offset)
        return io.BytesIO(file.read(sinfo.length))
