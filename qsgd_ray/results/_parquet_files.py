"""Tables as files of a storage: one small Parquet file a trial, packed into large ones; a table's rows out.

    trials/<trial_id>.parquet      one trial; replaced by a repeated attempt
    trials/packed-<time>.parquet   many trials, never changed; `measurements` alike

A trial may lie in several files, where a packing was killed or two ran at once. Readers take it from one: its own file,
else the newest pack. So a kill at any point neither loses nor doubles a row, as a pack is in its place, whole, before
the first file that it stands for goes.
"""

from __future__ import annotations

import re
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
from qsgd_ray.outcome import REPEATED
from qsgd_ray.results._row_checks import TRIAL_ID, check_rows, is_pack
from qsgd_ray.results.schema import MEASUREMENTS, SCHEMA_VERSION, TRIALS
from qsgd_ray.storage import Storage, StorageError, refused

_PACKED, _SUFFIX = "packed-", ".parquet"
_PACK_NAME = re.compile(r"packed-[0-9A-Za-z-]{1,80}\.parquet")
_SCHEMAS = {"trials": TRIALS, "measurements": MEASUREMENTS}
# A pack of fewer trials would save too little.
_LEAST_PACKED = 64
# Trials in one pack, which a packing holds in memory.
_MOST_PACKED = 1000
# Attempts of a reader while a packing moves files.
_READ_ATTEMPTS = 5


def trial_file(table: str, trial_id: str) -> str:
    """Return the name of a trial's own file in a table."""
    return f"{table}/{trial_id}{_SUFFIX}"


@dataclass(frozen=True)
class _Files:
    """Files of a table: ids of the trials that have their own, and names of the packs, the newest first."""

    ids: list[str]
    packs: list[str]


def _list_files(storage: Storage, table: str) -> _Files:
    """Return the files of a table as a listing shows them; StudyError for a name that this package never gives."""
    names = storage.names(table, _SUFFIX)
    for name in names:
        if not (_PACK_NAME if is_pack(name) else TRIAL_ID).fullmatch(name if is_pack(name) else _id_of(name)):
            raise refused(storage.location(f"{table}/{name}"), "whose name is no trial's id", "TRIAL_ID.parquet")
    ids = [_id_of(name) for name in names if not is_pack(name)]
    return _Files(ids, [name for name in reversed(names) if is_pack(name)])


def _id_of(name: str) -> str:
    return name.removesuffix(_SUFFIX)


def finished_ids(storage: Storage) -> set[str]:
    """Return the ids of the trials that have a row."""
    files = _list_files(storage, "trials")
    return set(files.ids).union(*(_ids_of(storage, pack) for pack in files.packs))


@lru_cache(maxsize=1024)  # a pack never changes, and every trial of a resumed study looks into it
def _packed_ids(storage: Storage, pack: str) -> frozenset[str]:
    """Return the ids of the trials in a pack."""
    return frozenset(_read_files(storage, "trials", [pack])["trial_id"].to_pylist())


def _ids_of(storage: Storage, pack: str) -> frozenset[str]:
    return _packed_ids(cast(Any, storage), pack)  # a protocol does not say that its classes can be hashed


def read_table(storage: Storage, table: str) -> pa.Table:
    """Return every row of `table`, each trial's once, in no order; StudyError in one line for a file that is broken."""
    for _ in range(_READ_ATTEMPTS):
        before = _list_files(storage, table)
        try:
            rows = _read(storage, table, before)
        except FileNotFoundError:  # packed since
            continue
        # A listing is no snapshot: a trial that was packed while it was made may be missing in both forms.
        if _list_files(storage, table).packs == before.packs:
            return rows
    raise StudyError(f"DIR: got {storage}, whose {table} are packed again and again; allowed: one packing at a time")


def _read(storage: Storage, table: str, files: _Files) -> pa.Table:
    tables = _read_files(storage, table, [f"{trial_id}{_SUFFIX}" for trial_id in files.ids])
    seen = pa.array(files.ids, pa.string())
    for pack in files.packs:
        rows = _read_files(storage, table, [pack])
        fresh = rows.filter(pc.invert(pc.is_in(rows["trial_id"], seen)))
        seen = pa.concat_arrays([seen, pc.unique(fresh["trial_id"])])
        tables = pa.concat_tables([tables, fresh])
    return tables


def _read_files(storage: Storage, table: str, names: Sequence[str]) -> pa.Table:
    """Return the checked rows of files, in their order; columns that an older file lacks are null."""
    schema = _SCHEMAS[table]

    def read(name: str) -> pa.Table:
        try:
            # Arrow's own types alone: another package's may run its code when they are read.
            file = pq.ParquetFile(pa.BufferReader(storage.read(f"{table}/{name}")), arrow_extensions_enabled=False)
            _check_version(file.schema_arrow, str(storage.location(f"{table}/{name}")))
            return _conformed(file.read(use_threads=False), schema)
        except (StorageError, FileNotFoundError):
            raise
        except (pa.ArrowException, OSError, KeyError, MemoryError) as error:
            problem = f"which cannot be read ({one_line(error)})"
            raise refused(storage.location(f"{table}/{name}"), problem, "the rows of a trial") from None

    # An object store answers late, but many requests together; files of a folder are parsed without the GIL.
    with ThreadPoolExecutor(max(2, storage.concurrent_reads)) as readers:
        # A thousand small tables take ten times the memory of one that holds their rows.
        merged = [schema.empty_table()]
        for start in range(0, len(names), _MOST_PACKED):
            part = names[start : start + _MOST_PACKED]
            tables = list(readers.map(read, part))
            rows = pa.concat_tables(tables).combine_chunks()
            lengths = [len(rows_of_file) for rows_of_file in tables]
            check_rows(table, rows, part, lengths, lambda name: storage.location(f"{table}/{name}"))
            merged.append(rows)
        return pa.concat_tables(merged)


def _check_version(schema: pa.Schema, file: str) -> None:
    """Raise StudyError for rows of a schema that is newer than this one (docs/results.md)."""
    version = (schema.metadata or {}).get(b"qsgd_ray_schema", b"0").decode(errors="replace")
    if not (version.isascii() and version.isdecimal() and len(version) < 10) or int(version) > int(SCHEMA_VERSION):
        raise refused(file, f"of schema version {version}", f"up to {SCHEMA_VERSION} (a newer qsgd-ray reads it)")


def _conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows of an older schema with the columns of `schema`, in its order and types."""
    if rows.schema.equals(schema):
        return rows.replace_schema_metadata(schema.metadata)
    have = set(rows.column_names)
    columns = [
        rows[field.name].cast(field.type) if field.name in have else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def pack(storage: Storage, least: int = _LEAST_PACKED) -> int:
    """Put the files of finished trials together where there are `least`, and return how many trials were packed.

    A lost trial is run again and keeps its file. A trial's own file that is replaced meanwhile by a repeated attempt
    may go with the others: the pack holds the row that it replaced.
    """
    # The names of the files that go come from a listing, never from rows.
    own = _list_files(storage, "trials").ids
    if len(own) < least:
        return 0
    with_measurements = set(_list_files(storage, "measurements").ids)
    return sum(
        _pack(storage, own[start : start + _MOST_PACKED], with_measurements)
        for start in range(0, len(own), _MOST_PACKED)
    )


def _pack(storage: Storage, ids: list[str], with_measurements: set[str]) -> int:
    try:
        trials = _read_files(storage, "trials", [f"{trial_id}{_SUFFIX}" for trial_id in ids])
        endings = trials["ending"].to_pylist()
        ended = [trial_id for trial_id, ending in zip(ids, endings, strict=True) if ending not in REPEATED]
        measured = [trial_id for trial_id in ended if trial_id in with_measurements]
        measurements = _read_files(storage, "measurements", [f"{trial_id}{_SUFFIX}" for trial_id in measured])
    except FileNotFoundError:  # another process packs them: that of the study, or a report of it
        return 0
    if not ended:
        return 0
    trials = trials.filter(pc.invert(pc.is_in(trials["ending"], pa.array([str(ending) for ending in REPEATED]))))
    name = f"{_PACKED}{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
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
        for _ in workers.map(lambda trial_id: storage.remove(trial_file(table, trial_id)), ids):
            pass


def read_trial(storage: Storage, table: str, trial_id: str) -> pa.Table | None:
    """Return the rows of one trial; None where no file has any."""
    try:
        return _read_files(storage, table, [f"{trial_id}{_SUFFIX}"])
    except FileNotFoundError:
        pass
    # Both tables by the pack of the trials, which is put last.
    for name in _list_files(storage, "trials").packs:
        if trial_id in _ids_of(storage, name):
            rows = _read_files(storage, table, [name])
            return rows.filter(pc.equal(rows["trial_id"], trial_id))
    return None
