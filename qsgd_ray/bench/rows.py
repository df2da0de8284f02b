"""Keep the rows of a bench: a Parquet file a run, and a table for the terminal.

A file is moved into place whole. `ratio` says how many times as long as another engine of the case a call takes, from
medians of the same rounds: the first, or the best peer.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

_PEERS = (
    *("qsgd-ray", "torch", "qiskit", "qiskit-aer", "pennylane", "pennylane-lightning", "qulacs", "transformers"),
    *("jax", "tensorcircuit-ng", "qujax", "pyqtorch", "deepquantum", "qibojit", "quimb"),
)
_SCHEMA = pa.schema(
    {
        "bench": pa.string(),
        "case": pa.string(),
        "engine": pa.string(),
        "per": pa.string(),
        "rounds": pa.int32(),
        "median_us": pa.float64(),
        "fastest_us": pa.float64(),
        "slowest_us": pa.float64(),
        "ratio": pa.float64(),
        "note": pa.string(),
        "first_ms": pa.float64(),
        "written_at": pa.timestamp("us", tz="UTC"),
        "machine": pa.string(),
        "threads": pa.int32(),
        "versions": pa.string(),
    }
)


@dataclass(frozen=True)
class Timing:
    """Time of one engine in one case, in microseconds a unit.

    Attributes:
        case: what was done, in words: circuits, sizes, threads.
        engine: the engine's name.
        per: the unit: a circuit, a call, a step, a trial.
        rounds: number of measurements; 0 where the engine was not run.
        median_us: median microseconds a unit; None where the engine was not run.
        fastest_us: least of the rounds.
        slowest_us: largest of the rounds.
        ratio: this engine's median over that of the case's first; of the bench of circuits, that of its best peer.
        note: what else there is to know: a measured error, a version, why there is no time.
        first_ms: milliseconds of the first call, in which things are made and compiled; None: not measured.
    """

    case: str
    engine: str
    per: str
    rounds: int
    median_us: float | None
    fastest_us: float | None
    slowest_us: float | None
    ratio: float | None
    note: str | None = None
    first_ms: float | None = None


def _of_pairs(seconds: Sequence[float], beside: Sequence[float], what: str = "rounds") -> str:
    """Return in words how many times as long one call took as another beside it: median and quartiles.

    Args:
        seconds: wall seconds of one call, a round each.
        beside: wall seconds of the other in the same rounds, of the same length.
        what: the word for a round.
    """
    ratios = np.array(seconds) / np.array(beside)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return f"of {ratios.size} pairs of {what} {median:.3f} times, half of them {low:.3f} to {high:.3f}"


def _timings(
    case: str,
    per: str,
    seconds: Mapping[str, list[float]],
    units: Mapping[str, int],
    notes: Mapping[str, str] | None = None,
) -> list[Timing]:
    """Return the rows of a case, in the order of its engines.

    Args:
        case: the case in words.
        per: the unit that a row's microseconds are for.
        seconds: wall seconds by engine, a round each; the first engine is the one that ratios refer to.
        units: how many circuits (calls, steps) one call of each engine does.
        notes: a note by engine; an engine that has a note and no seconds gets a row without numbers.
    """
    notes = notes or {}
    rows: list[Timing] = []
    for engine, rounds in seconds.items():
        us = [1e6 * second / units[engine] for second in rounds]
        median = statistics.median(us)
        first = rows[0].median_us if rows else median
        ratio = median / first if first else None
        rows.append(Timing(case, engine, per, len(us), median, min(us), max(us), ratio, notes.get(engine)))
    missing = [engine for engine in notes if engine not in seconds]
    return [*rows, *(Timing(case, engine, per, 0, None, None, None, None, notes[engine]) for engine in missing)]


def write_rows(bench: str, rows: Iterable[Timing], folder: Path) -> Path:
    """Write the rows as one new Parquet file, named by bench and time, and return its path.

    Args:
        bench: the bench's name.
        rows: rows of any cases.
        folder: where the file goes; made if it is not there.
    """
    import torch

    now = datetime.now(UTC)
    common: dict[str, Any] = {
        "bench": bench,
        "written_at": now,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }
    table = pa.Table.from_pylist([asdict(row) | common for row in rows], schema=_SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{bench}-{now:%Y%m%dT%H%M%S%f}.parquet"
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(table, unfinished)
    unfinished.replace(path)
    return path


def _versions() -> str:
    installed = []
    for name in _PEERS:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(installed)


def timing_table(rows: Sequence[Timing]) -> Table:
    """Return the rows of one case (one at least) as a table for a terminal of 80 columns, the case above it."""
    table = Table(
        title=Text(rows[0].case, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    first = any(row.first_ms is not None for row in rows)
    # The same widths for every case, so that numbers stand below each other.
    table.add_column("engine", width=20 if first else 32)
    columns = [("first call\nms", 10)] if first else []
    if any(row.rounds for row in rows):
        columns += [
            (f"median µs\na {rows[0].per}", 10),
            ("of best\npeer" if first else "times\nas long", 7),
            ("rounds", 6),
        ]
    for name, width in columns:
        table.add_column(name, justify="right", no_wrap=True, width=width)
    table.add_column("note")
    for row in rows:
        ratio = "–" if row.ratio is None else f"{row.ratio:,.2f}" if row.ratio < 10 else f"{row.ratio:,.0f}"
        numbers = [_number(row.median_us), ratio, str(row.rounds or "–")] if len(columns) > 1 else []
        table.add_row(Text(row.engine), *([_number(row.first_ms)] if first else []), *numbers, Text(row.note or ""))
    return table


def _number(time: float | None) -> str:
    if time is None:
        return "–"
    return f"{time:,.3g}" if time < 100 else f"{time:,.0f}"
