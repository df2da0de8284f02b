"""Tensors of a checkpoint as safetensors files, one a process: named tensors come in, and are read back by ranges.

A file is what https://github.com/huggingface/safetensors describes, so its library reads it too: eight bytes with the
length of a JSON header, the header, and the tensors' bytes. It is streamed out tensor by tensor, and read back without
the header, by the positions in the checkpoint's manifest (_manifest.py): nothing is copied twice, a shard is one range
of an object store's file, and nothing in the file is trusted. Each range has a checksum.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.storage import Storage, StorageError
from qsgd_ray.training._checkpoint_store import ReadInto, reading, write_file
from qsgd_ray.training._manifest import DTYPES, Manifest, Share, StoredShard, StoredTensor, file_name

_NAMES = {getattr(torch, name): code for code, (name, _) in DTYPES.items()}


class HeldRows(NamedTuple):
    """The rows of a tensor that a process holds.

    Attributes:
        local: these rows, in the tensor's own memory.
        start: number of the first one.
        shape: shape of the whole tensor.
    """

    local: Tensor
    start: int
    shape: tuple[int, ...]


def held_rows(tensor: Any) -> HeldRows:
    """Return the rows that this process holds: all, or of a DTensor its shard. A scalar has one row.

    Raises:
        ValueError: the tensor is sharded otherwise than by rows over one dimension of a mesh.
    """
    if not hasattr(tensor, "to_local"):
        return HeldRows(tensor.unsqueeze(0) if tensor.ndim == 0 else tensor, 0, tuple(tensor.shape))
    from torch.distributed.tensor import Shard  # a DTensor is there, so it has been imported

    if tuple(tensor.placements) != (Shard(0),):
        raise ValueError(
            f"got placements {tuple(tensor.placements)}; allowed: shards by rows over one dimension (fully_shard)"
        )
    _, start = Shard.local_shard_size_and_offset(
        tensor.shape[0], tensor.device_mesh.size(), tensor.device_mesh.get_local_rank()
    )
    return HeldRows(tensor.to_local(), int(start), tuple(tensor.shape))


def copy_of(tensor: Any) -> HeldRows:
    """Return a copy of the rows that this process holds, on the CPU and contiguous.

    Raises:
        ValueError: it is sharded otherwise than by rows.
    """
    held = held_rows(tensor)
    return held._replace(local=torch.empty(held.local.shape, dtype=held.local.dtype).copy_(held.local))


def write_share(storage: Storage, rank: int, rows: Mapping[str, HeldRows]) -> Share:
    """Write the tensors of one process to its file.

    Args:
        storage: the checkpoint's.
        rank: number of the process.
        rows: for each tensor of the checkpoint that this process writes, the rows that it has, copied.

    Returns:
        The size of the file, and where each tensor lies in it.

    Raises:
        OSError: the file cannot be written.
        KeyError: a tensor has a type that safetensors does not know.
    """
    # The largest type first: every tensor then begins at a multiple of its own size, as readers of a mapped file want.
    ordered = sorted(rows, key=lambda name: -rows[name].local.element_size())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in ordered:
        local = rows[name].local
        shape = rows[name].shape and tuple(local.shape)  # a scalar's one row is a scalar
        header[name] = {
            "dtype": _NAMES[local.dtype],
            "shape": shape,
            "data_offsets": (position, position := position + local.nbytes),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    checksums: dict[str, int] = {}

    def parts() -> Iterator[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for name in ordered:
            content = _bytes_of(rows[name].local)
            checksums[name] = zlib.crc32(content)
            yield content

    write_file(storage, file_name(rank), parts())
    tensors = {}
    for name in ordered:
        local, start, shape = rows[name]
        shard = StoredShard(
            rank=rank,
            start=start,
            stop=start + local.shape[0],
            offset=begin + header[name]["data_offsets"][0],
            crc32=checksums[name],
        )
        tensors[name] = StoredTensor(dtype=_NAMES[local.dtype], shape=shape, shards=(shard,) if local.numel() else ())
    return Share(size=begin + position, tensors=tensors)


def read_tensors(storage: Storage, manifest: Manifest, targets: Mapping[str, Any]) -> None:
    """Read tensors of a checkpoint into the rows of them that this process holds.

    Args:
        storage: the checkpoint's.
        manifest: what was written, by however many processes.
        targets: tensors, whole or in shards, by their name in the manifest, on any device.

    Raises:
        StorageError: a tensor is not in the manifest or has another type or shape there, or a file is torn or altered;
            the targets are then changed in part.
        OSError: a file cannot be read.
    """
    for name, target in targets.items():
        _check_alike(name, manifest.tensors.get(name), target)
    with ExitStack() as stack, torch.no_grad():
        files: dict[int, ReadInto] = {}
        for name, target in targets.items():
            stored, held = manifest.tensors[name], held_rows(target)
            stop = held.start + held.local.shape[0]
            for shard in stored.shards:
                first, last = max(shard.start, held.start), min(shard.stop, stop)
                if first >= last:
                    continue
                if shard.rank not in files:
                    size = manifest.files[shard.rank]
                    files[shard.rank] = stack.enter_context(reading(storage, file_name(shard.rank), size))
                rows = held.local[first - held.start : last - held.start]
                if last - first == shard.stop - shard.start and rows.device.type == "cpu" and rows.is_contiguous():
                    _read_shard(name, files[shard.rank], shard, rows)
                    continue
                all_rows = torch.empty((shard.stop - shard.start, *rows.shape[1:]), dtype=rows.dtype)
                _read_shard(name, files[shard.rank], shard, all_rows)
                rows.copy_(all_rows[first - shard.start : last - shard.start])


def _check_alike(name: str, stored: StoredTensor | None, target: Any) -> None:
    if stored is None:
        raise StorageError(f"{name}: got no tensor of this name; allowed: all tensors of the training")
    if stored.shape != tuple(target.shape):
        raise StorageError(f"{name}: got the shape {list(stored.shape)}; allowed: {list(target.shape)}")
    if stored.dtype != _NAMES.get(target.dtype):
        raise StorageError(f"{name}: got the type {stored.dtype}; allowed: {_NAMES.get(target.dtype)}")


def _read_shard(name: str, read_into: ReadInto, shard: StoredShard, rows: Tensor) -> None:
    """Read all of a shard into contiguous rows on the CPU, and check its checksum."""
    content = _bytes_of(rows)
    read_into(shard.offset, content)
    if (checksum := zlib.crc32(content)) != shard.crc32:
        raise StorageError(
            f"{file_name(shard.rank)}: {name} has the CRC-32 {checksum:08x}; allowed: {shard.crc32:08x}, as it was "
            "written"
        )


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU."""
    return tensor.view(-1).view(torch.uint8).numpy().data
