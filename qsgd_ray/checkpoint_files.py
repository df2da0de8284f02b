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


class StoreFiles(FileSystemBase):
    """torch's file system on top of pyarrow's."""

    def __init__(self, store: ObjectStore) -> None:
        self._files, _ = store.filesystem()
        self._has_folders = store.has_folders

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        if mode == "rb":
            with self._files.open_input_file(os.fspath(path)) as stream:
                yield stream
        else:
            with self._files.open_output_stream(os.fspath(path)) as stream:
                yield stream

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str:
        return f"{os.fspath(path)}/{suffix}"

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        self._files.move(os.fspath(path), os.fspath(new_path))

    def init_path(self, path: str | os.PathLike[str]) -> str:
        return os.fspath(path)

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        if self._has_folders:
            self._files.create_dir(os.fspath(path))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return isinstance(checkpoint_id, str)

    def exists(self, path: str | os.PathLike[str]) -> bool:
        from pyarrow import fs

        return bool(self._files.get_file_info(os.fspath(path)).type != fs.FileType.NotFound)

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        self._files.delete_file(os.fspath(path))


class StoreWriter(FileSystemWriter):
    """A store keeps what it has taken: there is nothing to sync."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__("", sync_files=False)
        self.fs = StoreFiles(store)  # type: ignore[assignment]
        self.path = store.filesystem()[1]


class StoreReader(FileSystemReader):
    """torch reads a tensor's file bit by bit, each of which would be a request."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__("")
        self.fs = StoreFiles(store)  # type: ignore[assignment]
        self.path = store.filesystem()[1]

    def _slice_file(self, file: Any, sinfo: Any) -> IO[bytes]:
        file.seek(sinfo.offset)
        return io.BytesIO(file.read(sinfo.length))
