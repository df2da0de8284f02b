"""Keep the rows of a study of limits: one typed Parquet row a measured size.

    DIR/limits.json         the study            DIR/sizes/<size_id>.parquet   one row
    DIR/provenance.json     versions, hardware

A row is named by the hash of what defines its measurement, so a size that has its row is not measured again, whatever
else in the study changes.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qsgd_ray.config import Curve, Limits, StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.config.study import settings_from_tree
from qsgd_ray.limits._row_checks import problem_of_row
from qsgd_ray.storage import Storage, StorageError, refused, refused_unless_written, storage_at

_SCHEMA_VERSION = "2"
# (n_actors, batch) for a pool; a number of qubits, parameters ... for the others.
Size = int | tuple[int, int]
Row = dict[str, Any]

_COLUMNS = {
    "curve": pa.string(),
    "kind": pa.string(),
    "size_id": pa.string(),
    "per": pa.string(),  # what the seconds are of: call, step; null where nothing is timed
    "engine": pa.string(),
    "n_qubits": pa.int32(),
    "depth": pa.int32(),
    "entangle": pa.string(),
    "batch": pa.int64(),
    "shots": pa.int64(),
    "noise": pa.string(),
    "source": pa.string(),
    "scope": pa.string(),
    "n_tensors": pa.int32(),
    "n_parameters": pa.int64(),
    "n_actors": pa.int32(),
    "n_tokens": pa.int32(),
    "theta": pa.string(),
    "position": pa.int32(),
    "n_circuits": pa.int64(),  # of a step of an optimizer
    "rounds": pa.int32(),
    "median_s": pa.float64(),
    "low_s": pa.float64(),  # the lower quartile, which is what is fitted: see _curves.py
    "high_s": pa.float64(),
    # The lower quartile of AdamW's step, or of the same circuits in one process without a pool, in the same rounds.
    "beside_s": pa.float64(),
    "peak_bytes": pa.int64(),  # held at a time by tensors made in a call; where an engine's numbers are torch's
    "signal": pa.float64(),
    "signal_low": pa.float64(),
    "signal_high": pa.float64(),
    "step_ratio": pa.float64(),  # |lambda * Q| / |Adam's step|
    "error": pa.float64(),
    "kept": pa.float64(),
    "measured_at": pa.timestamp("us", tz="UTC"),
}
_SIZES = pa.schema(_COLUMNS.items(), metadata={"qsgd_ray_limits_schema": _SCHEMA_VERSION})


@dataclass(frozen=True)
class LimitsTables:
    """A study of limits as read back.

    Attributes:
        limits: the study.
        provenance: versions and hardware.
        sizes: Arrow table, a row for every measured size that belongs to the study.
    """

    limits: Limits
    provenance: dict[str, Any]
    sizes: pa.Table


def _sizes_of(curve: Curve) -> tuple[Size, ...]:
    """Return all sizes of a curve; the one that is held out comes last."""
    if curve.kind == "pool":
        return tuple((actors, batch) for actors in sorted(curve.actors) for batch in sorted(curve.batches))
    return curve.sizes


def _size_id(limits: Limits, curve: Curve, size: Size) -> str:
    """Return the name of one measurement by all that defines it: neither its curve's name nor the other sizes.

    Args:
        limits: the study, whose budget and seed count.
        curve: the curve.
        size: the size.
    """
    listed = {"name", "sizes", "actors", "batches"}
    defines = {
        "curve": curve.model_dump(mode="json", exclude=listed),
        "size": size,
        "budget_s": limits.budget_s,
        "seed": limits.seed,
        "schema": _SCHEMA_VERSION,
    }
    digest = hashlib.sha256(json.dumps(defines, sort_keys=True).encode()).hexdigest()
    return f"{curve.kind}-{digest[:16]}"


class LimitsResults:
    """Results of a study of limits at a folder or URI. StorageError where an object store fails."""

    def __init__(self, where: str | Path | Storage) -> None:
        self.storage = storage_at(where)
        self.path = self.storage.location()

    def open(self, limits: Limits, provenance: dict[str, Any]) -> None:
        """Make the place ready; a changed study goes on here, as every row says what it belongs to.

        Args:
            limits: the study.
            provenance: versions and hardware, as JSON data.

        Raises:
            StudyError: the place cannot be written, or holds a study of another kind.
        """
        with refused_unless_written(self.storage):
            self.storage.create_folders("sizes")
            self.storage.remove_abandoned("", "sizes")
            if self._text("study.json") is not None:
                raise StudyError(
                    f"--storage: got {self.path}, which holds a study of another kind; allowed: a new "
                    f"{self.storage.kind}"
                )
            self.storage.check_exists()
            self.storage.put("limits.json", limits.model_dump_json(indent=2).encode())
            self.storage.put("provenance.json", json.dumps(provenance, indent=2).encode())

    def missing(self, limits: Limits, curve: Curve) -> list[Size]:
        """Return the sizes of a curve that have no row.

        Args:
            limits: the study.
            curve: one of its curves.
        """
        names = set(self.storage.names("sizes", ".parquet"))
        return [size for size in _sizes_of(curve) if f"{_size_id(limits, curve, size)}.parquet" not in names]

    def write(self, limits: Limits, curve: Curve, size: Size, measured: Row) -> None:
        """Write the row of one size, put into place whole.

        Args:
            limits: the study.
            curve: one of its curves.
            size: the size that was measured.
            measured: columns of the row.
        """
        name = _size_id(limits, curve, size)
        row = {"curve": curve.name, "kind": curve.kind, "size_id": name, "measured_at": datetime.now(UTC)} | measured
        content = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([row], schema=_SIZES), content)
        self.storage.put(f"sizes/{name}.parquet", content.getvalue().to_pybytes())

    def read(self) -> LimitsTables:
        """Return the study and its rows, in the order of curves and sizes; each with its curve's present name."""
        text, provenance = self._text("limits.json"), self._text("provenance.json")
        if text is None or provenance is None:
            raise StudyError(
                f"DIR: got {self.path}; allowed: the results of a study of limits "
                "(qsgd-ray run studies/scaling_limits.py makes them)"
            )
        try:
            limits = settings_from_tree(self._object("limits.json", text), Limits)
        except StudyError as error:
            if str(error).startswith("DIR:"):
                raise
            field, _, reason = str(error).partition("; allowed: ")
            raise refused(self.storage.location("limits.json"), f"with {field}", reason) from None
        made_with = self._object("provenance.json", provenance)
        if problem := _problem_of(made_with):
            place = self.storage.location("provenance.json")
            raise refused(place, f"whose {problem}", "what qsgd-ray measured when the study ran")
        names = set(self.storage.names("sizes", ".parquet"))
        wanted = [
            (curve, size, name)
            for curve in limits.curves
            for size, name in ((size, _size_id(limits, curve, size)) for size in _sizes_of(curve))
            if f"{name}.parquet" in names
        ]
        with ThreadPoolExecutor(self.storage.concurrent_reads) as readers:
            rows = list(readers.map(lambda each: self._row(*each), wanted))
        named = [row | {"curve": curve.name} for row, (curve, _, _) in zip(rows, wanted, strict=True)]
        return LimitsTables(limits, made_with, pa.Table.from_pylist(named, schema=_SIZES))

    def _row(self, curve: Curve, size: Size, name: str) -> Row:
        file = f"sizes/{name}.parquet"
        try:
            content = self.storage.read(file)
            row = dict(pq.read_table(pa.BufferReader(content), schema=_SIZES).to_pylist()[0])
        except StorageError:
            raise
        except (pa.ArrowException, OSError, IndexError, KeyError, ValueError, MemoryError) as error:
            place = self.storage.location(file)
            raise refused(place, f"which cannot be read ({one_line(error)})", "the row of a measured size") from None
        if problem := problem_of_row(curve, size, name, row):
            raise refused(self.storage.location(file), problem, "what was measured at this size")
        return row

    def _object(self, name: str, text: bytes) -> dict[str, Any]:
        try:
            tree = parse_json(text)
            if not isinstance(tree, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise refused(self.path, f"whose {name} is broken ({error})", f"a study's {self.storage.kind}") from None
        return tree

    def _text(self, name: str) -> bytes | None:
        try:
            return self.storage.read(name)
        except FileNotFoundError:
            return None


def _problem_of(provenance: dict[str, Any]) -> str | None:
    """Return the field of a provenance that pages and plans cannot use, with what it is; None where all can be used."""
    hardware, measured = provenance.get("hardware"), provenance.get("measured")
    if not isinstance(hardware, dict):
        return f"hardware is {hardware!r}"
    if not isinstance(measured, dict):
        return f"measured is {measured!r}"
    memory, speed = hardware.get("memory_bytes"), measured.get("matmul_flops_per_s")
    if not isinstance(memory, int) or isinstance(memory, bool) or not 0 < memory < 2**63:
        return f"hardware.memory_bytes is {memory!r}"
    if not isinstance(speed, int | float) or isinstance(speed, bool) or not 0 < speed < 1e30:
        return f"measured.matmul_flops_per_s is {speed!r}"
    return next(
        (
            f"hardware.{name} is {hardware.get(name)!r}"
            for name in ("processor", "machine")
            if not isinstance(hardware.get(name), str | None)
        ),
        None,
    )


def is_limits(where: str | Path | Storage) -> bool:
    """Return whether a study of limits lies there."""
    try:
        storage_at(where).read("limits.json")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
