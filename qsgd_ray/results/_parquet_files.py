"""Tables as files of a storage: one small Parquet file a trial, packed into large ones; all of a table's rows out.

    trials/<trial_id>.parquet      one trial, put by who ran it; replaced by a repeated attempt
    trials/packed-<time>.parquet   many trials, never changed; `measurements` alike

A trial may lie in several files, where a packing was killed or two ran at once. Readers take it from one: its own file,
else the newest pack. So a kill at any point neither loses nor doubles a row, as a pack is in its place, whole, before
the first file that it stands for goes.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.outcome import Ending
from qsgd_ray.results.schema import MEASUREMENTS, SCHEMA_VERSION, TRIALS
from qsgd_ray.storage import Storage, StorageError

PACKED, SUFFIX = "packed-", ".parquet"
SCHEMAS = {"trials": TRIALS, "measurements": MEASUREMENTS}
# A pack for fewer trials would save nobody anything.
LEAST_PACKED = 64
# In one pack: what a packing holds in memory.
MOST_PACKED = 1000
# How often a reader begins anew because a packing moves files under its hands.
READ_ATTEMPTS = 5


def file_of(table: str, trial_id: str) -> str:
    return f"{table}/{trial_id}{SUFFIX}"


@dataclass(frozen=True)
class Listed:
    """The files of a table: ids of the trials that have their own, names of the packs, newest first."""

    ids: list[str]
    packs: list[str]


def listed(storage: Storage, table: str) -> Listed:
    names = storage.names(table, SUFFIX)
    ids = [name.removesuffix(SUFFIX) for name in names if not name.startswith(PACKED)]
    return Listed(ids, [name for name in reversed(names) if name.startswith(PACKED)])


def finished(storage: Storage) -> set[str]:
    """The ids of the trials that have a row."""
    files = listed(storage, "trials")
    return set(files.ids).union(*(_ids_of(storage, pack) for pack in files.packs))


@lru_cache(maxsize=1024)  # a pack never changes, and every trial of a study that goes on asks for it
def packed_ids(storage: Storage, pack: str) -> frozenset[str]:
    """The trials in a pack."""
    found = pq.read_table(pa.BufferReader(storage.read(f"trials/{pack}")), columns=["trial_id"])
    return frozenset(found["trial_id"].to_pylist())


def _ids_of(storage: Storage, pack: str) -> frozenset[str]:
    return packed_ids(cast(Any, storage), pack)  # a protocol does not say that what keeps it can be hashed


def read_table(storage: Storage, table: str) -> pa.Table:
    """Every row of `table`, each trial's once, in no order; StudyError in one line for a file that is none of it."""
    for _ in range(READ_ATTEMPTS):
        before = listed(storage, table)
        try:
            found = _read(storage, table, before)
        except FileNotFoundError:  # packed since
            continue
        # A listing is no snapshot: what was packed while it was made may be missing in both forms.
        if listed(storage, table).packs == before.packs:
            return found
    raise StudyError(f"DIR: got {storage}, whose {table} are packed again and again; allowed: one packing at a time")


def _read(storage: Storage, table: str, files: Listed) -> pa.Table:
    tables = read_files(storage, table, [f"{trial_id}{SUFFIX}" for trial_id in files.ids])
    seen = pa.array(files.ids, pa.string())
    for pack in files.packs:
        rows = read_files(storage, table, [pack])
        fresh = rows.filter(pc.invert(pc.is_in(rows["trial_id"], seen)))
        seen = pa.concat_arrays([seen, pc.unique(fresh["trial_id"])])
        tables = pa.concat_tables([tables, fresh])
    return tables


def read_files(storage: Storage, table: str, names: Sequence[str]) -> pa.Table:
    """The rows of these files in their order, by `SCHEMAS`: columns that a file has not yet are null."""
    schema = SCHEMAS[table]

    def read(name: str) -> pa.Table:
        try:
            file = pq.ParquetFile(pa.BufferReader(storage.read(f"{table}/{name}")))
            check_version(file.schema_arrow, str(storage.location(f"{table}/{name}")))
            return _as_told(file.read(use_threads=False), schema)
        except (StorageError, FileNotFoundError):
            raise
        except (pa.ArrowException, OSError) as error:
            raise StudyError(
                f"DIR: got {storage.location(f'{table}/{name}')}, which cannot be read ({one_line(error)}); "
                "allowed: the rows of a trial"
            ) from None

    # An object store answers late, but many at once; the files of a folder are parsed outside the interpreter's lock.
    with ThreadPoolExecutor(max(2, storage.concurrent_reads)) as readers:
        # A thousand small tables take ten times the memory of one that holds their rows.
        parts = (names[start : start + MOST_PACKED] for start in range(0, len(names), MOST_PACKED))
        wholes = [pa.concat_tables(readers.map(read, part)).combine_chunks() for part in parts]
        return pa.concat_tables([schema.empty_table(), *wholes])


def check_version(schema: pa.Schema, file: str) -> None:
    """StudyError for rows of a schema that is newer than this one (docs/results.md)."""
    version = (schema.metadata or {}).get(b"qsgd_ray_schema", b"0").decode()
    if not version.isdecimal() or int(version) > int(SCHEMA_VERSION):
        raise StudyError(
            f"DIR: got {file} of schema version {version}; allowed: up to {SCHEMA_VERSION} (a newer qsgd-ray reads it)"
        )


def _as_told(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    if rows.schema.equals(schema):
        return rows.replace_schema_metadata(schema.metadata)
    have = set(rows.column_names)
    columns = [
        rows[field.name].cast(field.type) if field.name in have else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def pack(storage: Storage, least: int = LEAST_PACKED) -> int:
    """Put the files of finished trials together, where there are `least` of them; how many trials were packed.

    A lost trial is tried again and keeps its file. A trial's own file that is replaced meanwhile by a repeated attempt
    may go with the others: the pack holds the row that it replaced.
    """
    own = listed(storage, "trials").ids
    if len(own) < least:
        return 0
    with_measurements = set(listed(storage, "measurements").ids)
    return sum(
        _pack(storage, own[start : start + MOST_PACKED], with_measurements) for start in range(0, len(own), MOST_PACKED)
    )


def _pack(storage: Storage, ids: list[str], with_measurements: set[str]) -> int:
    trials = read_files(storage, "trials", [f"{trial_id}{SUFFIX}" for trial_id in ids])
    trials = trials.filter(pc.not_equal(trials["ending"], str(Ending.LOST)))
    ended = trials["trial_id"].to_pylist()
    if not ended:
        return 0
    measured = [trial_id for trial_id in ended if trial_id in with_measurements]
    measurements = read_files(storage, "measurements", [f"{trial_id}{SUFFIX}" for trial_id in measured])
    name = f"{PACKED}{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}{SUFFIX}"
    # As a single trial is written: its row comes last.
    for table, rows in (("measurements", measurements), ("trials", trials)):
        content = pa.BufferOutputStream()
        pq.write_table(rows, content)
        storage.put(f"{table}/{name}", content.getvalue().to_pybytes())
    _remove(storage, "trials", ended)
    _remove(storage, "measurements", measured)
    return len(ended)


def _remove(storage: Storage, table: str, ids: Collection[str]) -> None:
    with ThreadPoolExecutor(storage.concurrent_reads) as workers:
        for _ in workers.map(lambda trial_id: storage.remove(file_of(table, trial_id)), ids):
            pass


def read_trial(storage: Storage, table: str, trial_id: str) -> pa.Table | None:
    """The rows of one trial; None where no file has any."""
    try:
        return read_files(storage, table, [f"{trial_id}{SUFFIX}"])
    except FileNotFoundError:
        pass
    # Of both tables by the pack of the trials, which is put last.
    for name in listed(storage, "trials").packs:
        if trial_id in _ids_of(storage, name):
            rows = read_files(storage, table, [name])
            return rows.filter(pc.equal(rows["trial_id"], trial_id))
    return None
