"""The manifest of a checkpoint: its counts, and where its tensors lie, as JSON that is checked to the last byte.

    {"checkpoint": {...}, "sha256": "..."}

No name of a file is in it: process r has written `rank<r>.safetensors`. A tensor's shards are whole rows of it, in
their order and without a gap; each is one range of one file, with its checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from qsgd_ray.outcome import Measurement
from qsgd_ray.storage import StorageError

# safetensors' name of a type: torch's name, and its size in bytes.
DTYPES: dict[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}

_Count = Annotated[int, Field(ge=0)]
_Number = bool | int | float


class _Checked(BaseModel):
    """Data that is checked strictly: no text is taken for a number, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StoredShard(_Checked):
    """Rows of a tensor in a file.

    Attributes:
        rank: the process whose file it is.
        start: number of the first row.
        stop: number of the row after the last one.
        offset: position of their first byte in the file.
        crc32: CRC-32 of their bytes.
    """

    rank: _Count
    start: _Count
    stop: _Count
    offset: _Count
    crc32: Annotated[int, Field(ge=0, lt=2**32)]


class StoredTensor(_Checked):
    """A tensor in the files of a checkpoint.

    Attributes:
        dtype: its type, by safetensors' name.
        shape: its whole shape; () is a scalar, which is one row.
        shards: its rows, in their order; none where it has no elements.
    """

    dtype: str
    shape: tuple[_Count, ...]
    shards: tuple[StoredShard, ...]

    @field_validator("dtype")
    @classmethod
    def _known(cls, dtype: str) -> str:
        if dtype not in DTYPES:
            raise ValueError(f"one of {', '.join(DTYPES)}")
        return dtype

    def n_bytes(self, shard: StoredShard) -> int:
        """Return the size of a shard."""
        return (shard.stop - shard.start) * math.prod(self.shape[1:]) * DTYPES[self.dtype][1]

    @property
    def n_rows(self) -> int:
        """Number of rows that lie in files."""
        if 0 in self.shape:
            return 0
        return self.shape[0] if self.shape else 1


class Share(_Checked):
    """The part of a checkpoint that one process has written.

    Attributes:
        size: bytes of its file.
        tensors: where each tensor lies in it.
    """

    size: _Count
    tensors: dict[str, StoredTensor]


class _Means(_Checked):
    """Means of norms (optimizer/_norms.py): of the model, and of each parameter group so far."""

    n: _Count
    model: Annotated[list[float], Field(min_length=2, max_length=2)]
    groups: Annotated[list[list[float]], Field(min_length=2, max_length=2)]
    n_of_group: list[float]


class _Telemetry(_Checked):
    """Telemetry of the optimizer (SuperpositionalAdamW.telemetry_state)."""

    means: _Means
    wait_s: float
    busy_s: float | None
    n_circuits: _Count
    under_way: bool


class Manifest(_Checked):
    """Everything of a checkpoint but the tensors' bytes.

    Attributes:
        version: version of this format.
        step: optimizer steps taken.
        world_size: processes that have written it.
        started_at: time at which the trial began, ISO 8601 with its zone.
        wall_s: seconds of training.
        evaluation_s: seconds of evaluation.
        n_tokens: tokens trained on.
        model_flops: floating point operations of the model's mathematics.
        measurements: one for each epoch that has ended.
        groups: numbers of each parameter group.
        optimizer: state of optimizers of other classes than AdamW (_optimizer_state.py), groups and all, but for its
            tensors. None: there are none; the field is then left out of the text.
        schedules: state of each schedule.
        scaler: state of the scaler of losses; {}: it is off.
        telemetry: state of the optimizer's telemetry; None: it has none.
        files: bytes of each process's file.
        tensors: the tensors by name.
    """

    version: Literal[1] = 1
    step: Annotated[int, Field(ge=1)]
    world_size: Annotated[int, Field(ge=1)]
    started_at: str
    wall_s: float
    evaluation_s: float
    n_tokens: _Count
    model_flops: float
    measurements: tuple[Measurement, ...]
    groups: list[dict[str, _Number]]
    optimizer: JsonValue = None
    schedules: list[dict[str, JsonValue]]
    scaler: dict[str, JsonValue]
    telemetry: _Telemetry | None
    files: tuple[_Count, ...]
    tensors: dict[str, StoredTensor]

    @field_validator("started_at")
    @classmethod
    def _a_time(cls, text: str) -> str:
        if datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("a time with its zone")
        return text

    @field_validator("measurements")
    @classmethod
    def _one_an_epoch(cls, measurements: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
        if [measurement.epoch for measurement in measurements] != [*range(1, len(measurements) + 1)]:
            raise ValueError("one for each epoch, in their order")
        return measurements

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        if len(self.files) != self.world_size:
            raise ValueError(f"files: got {len(self.files)}; allowed: {self.world_size}, one a process")
        n_bytes = 0
        for name, tensor in self.tensors.items():
            row = 0
            for shard in tensor.shards:
                if shard.rank >= self.world_size:
                    raise ValueError(f"{name}: got rank {shard.rank}; allowed: below {self.world_size}")
                if shard.start != row or shard.stop <= row:
                    raise ValueError(f"{name}: got rows {shard.start} to {shard.stop}; allowed: from {row} on")
                if shard.offset + tensor.n_bytes(shard) > self.files[shard.rank]:
                    raise ValueError(f"{name}: got bytes beyond the end of {file_name(shard.rank)}")
                row = shard.stop
            if row != tensor.n_rows:
                raise ValueError(f"{name}: got {row} rows; allowed: {tensor.n_rows}")
            n_bytes += sum(tensor.n_bytes(shard) for shard in tensor.shards)
        if n_bytes > sum(self.files):
            raise ValueError(f"tensors: got {n_bytes} bytes; allowed: {sum(self.files)}, as the files have")
        return self


class OldFormat(StorageError):
    """A checkpoint of a version of this package that pickled a part of it."""


def file_name(rank: int) -> str:
    """Return the name of a process's file."""
    return f"rank{rank}.safetensors"


def merged_tensors(shares: list[Share]) -> dict[str, StoredTensor]:
    """Return where each tensor lies in the files of all processes.

    Args:
        shares: what each process has written, by rank.

    Returns:
        The tensors by name, the shards of each by rising row.
    """
    tensors: dict[str, StoredTensor] = {}
    for share in shares:
        for name, tensor in share.tensors.items():
            others = tensors[name].shards if name in tensors else ()
            shards = sorted((*others, *tensor.shards), key=lambda shard: shard.start)
            tensors[name] = StoredTensor(dtype=tensor.dtype, shape=tensor.shape, shards=tuple(shards))
    return tensors


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as JSON with its own checksum; the same manifest gives the same bytes."""
    tree = manifest.model_dump(exclude={"optimizer"} if manifest.optimizer is None else None)
    for measurement in tree["measurements"]:  # those of a task without further metrics have no such field
        if measurement["metrics"] is None:
            del measurement["metrics"]
    return _text({"checkpoint": tree, "sha256": hashlib.sha256(_text(tree)).hexdigest()})


def _text(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


class _Sealed(_Checked):
    """A manifest and its checksum, as they are read."""

    checkpoint: Manifest
    sha256: str


def decode(content: bytes) -> Manifest:
    """Return a manifest from its JSON.

    Args:
        content: what `encode` returned.

    Raises:
        OldFormat: an earlier version of this package has written it, and pickled a part of the checkpoint.
        StorageError: it is anything else but the bytes that `encode` returned.
    """
    try:
        manifest = _Sealed.model_validate_json(content).checkpoint
    except ValidationError as error:
        if is_old(content):
            raise OldFormat("written by an earlier version, in a format that runs code when it is read") from None
        raise StorageError(_reason(error)) from None
    if encode(manifest) != content:
        raise StorageError("altered: its SHA-256 is not that of its content")
    return manifest


def _reason(error: ValidationError) -> str:
    """Return the first problem in one line: the field, what came, what is allowed."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(map(str, problem["loc"][1:])) or "manifest"
    value = problem["input"]
    came = f"got {value!r:.60}; " if isinstance(value, bool | int | float | str) and problem["loc"] else ""
    words = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    match problem["type"]:
        case "missing":
            came, words = "got nothing; ", "a value"
        case "extra_forbidden":
            words = "no field of this name"
    return f"{path}: {came}allowed: {words}"


def is_old(content: bytes) -> bool:
    """Return True for numbers as they were written beside a checkpoint of torch.distributed.checkpoint."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(tree, dict) and "checkpoint" not in tree and {"step", "groups", "world_size"} <= tree.keys()
