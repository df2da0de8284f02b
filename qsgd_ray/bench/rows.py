"""What a bench found: typed rows in; a Parquet file and a table for a person to read out.

One file a run, moved into place whole. `ratio` says how many times as long as the case's first engine a call takes,
from medians of the same rounds.
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

PEERS = ("qsgd-ray", "torch", "qiskit", "qiskit-aer", "pennylane", "qulacs", "transformers")
SCHEMA = pa.schema(
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
        "written_at": pa.timestamp("us", tz="UTC"),
        "machine": pa.string(),
        "threads": pa.int32(),
        "versions": pa.string(),
    }
)


@dataclass(frozen=True)
class Timing:
    """One engine in one case: microseconds `per` unit (a circuit, a call, a step).

    `ratio`: this engine's median over that of the case's first. `note`: what else there is to know, e.g. what `auto`
    picked, an error measured, or why there is no time (then the numbers are None).
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


def of_pairs(seconds: Sequence[float], beside: Sequence[float], what: str = "rounds") -> str:
    """How many times as long one took as the other beside it, in words: the median and the quartiles."""
    ratios = np.array(seconds) / np.array(beside)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return f"of {ratios.size} pairs of {what} {median:.3f} times, half of them {low:.3f} to {high:.3f}"


def timings(
    case: str,
    per: str,
    seconds: Mapping[str, list[float]],
    units: Mapping[str, int],
    notes: Mapping[str, str] | None = None,
) -> list[Timing]:
    """Rows of a case, in the order of its engines; `units`: how many circuits (calls, steps) a call of each does."""
    notes = notes or {}
    found: list[Timing] = []
    for engine, rounds in seconds.items():
        us = [1e6 * second / units[engine] for second in rounds]
        median = statistics.median(us)
        first = found[0].median_us if found else median
        ratio = median / first if first else None
        found.append(Timing(case, engine, per, len(us), median, min(us), max(us), ratio, notes.get(engine)))
    missing = [engine for engine in notes if engine not in seconds]
    return [*found, *(Timing(case, engine, per, 0, None, None, None, None, notes[engine]) for engine in missing)]


def write_rows(bench: str, rows: Iterable[Timing], folder: Path) -> Path:
    """The rows as one new Parquet file in `folder`, named by bench and time."""
    import torch

    now = datetime.now(UTC)
    common: dict[str, Any] = {
        "bench": bench,
        "written_at": now,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }
    table = pa.Table.from_pylist([asdict(row) | common for row in rows], schema=SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{bench}-{now:%Y%m%dT%H%M%S%f}.parquet"
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(table, unfinished)
    unfinished.replace(path)
    return path


def _versions() -> str:
    found = []
    for name in PEERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def timing_table(rows: Sequence[Timing]) -> Table:
    """The rows of one case (one at least) as a table for a terminal of 80 columns, the case above it."""
    table = Table(
        title=Text(rows[0].case, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    # The same widths for every case, so that numbers stand below each other.
    table.add_column("engine", width=32)
    for name, width in ((f"median µs\na {rows[0].per}", 10), ("times\nas long", 7), ("rounds", 6)):
        table.add_column(name, justify="right", no_wrap=True, width=width)
    table.add_column("note")
    for row in rows:
        ratio = "–" if row.ratio is None else f"{row.ratio:,.2f}" if row.ratio < 10 else f"{row.ratio:,.0f}"
        numbers = (_number(row.median_us), ratio, str(row.rounds or "–"))
        table.add_row(Text(row.engine), *numbers, Text(row.note or ""))
    return table


def _number(us: float | None) -> str:
    if us is None:
        return "–"
    return f"{us:,.3g}" if us < 100 else f"{us:,.0f}"
