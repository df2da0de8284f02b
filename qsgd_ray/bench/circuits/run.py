"""Measure cases: each engine's first call and its answer, then interleaved rounds of all; rows out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from qsgd_ray.bench.circuits import _grid as grid
from qsgd_ray.bench.circuits._case import TOLERANCES, Arrays, Case, as_arrays, largest_difference
from qsgd_ray.bench.circuits._ours import OURS
from qsgd_ray.bench.circuits.engine import Call, Engine
from qsgd_ray.bench.circuits.peers import PEERS
from qsgd_ray.bench.rows import Timing, _timings
from qsgd_ray.bench.timing import interleaved

_ENGINES = (*OURS, *PEERS)
ENGINE_NAMES = tuple(engine.name for engine in _ENGINES)


def cases(
    budget_s: float = 2.0,
    quick: bool = False,
    every: bool = False,
    engines: Sequence[str] = (),
    words: Sequence[str] = (),
) -> Iterator[list[Timing]]:
    """Yield what is installed, then the rows of each case as soon as it ends.

    Args:
        budget_s: seconds that a case's rounds may take; first calls come on top.
        quick: eight small cases.
        every: all cases.
        engines: names of engines, of `ENGINE_NAMES`; none: all.
        words: words that must be in a case's name; none: all cases of the set.

    Raises:
        AssertionError: an engine differs from the exact answers by more than rounding.
    """
    chosen = [engine for engine in _ENGINES if not engines or engine.name in engines]
    yield _installed(chosen)
    here = [engine for engine in chosen if not engine.missing()]
    sets = grid.quick if quick else grid.every if every else grid.usual
    for case in sets():
        if all(word in str(case) for word in words) and (rows := _measured(case, here, budget_s)):
            yield rows


def _installed(engines: Iterable[Engine]) -> list[Timing]:
    """Return a row without times for each peer: its version, or that it is not installed."""
    notes = {engine.name: engine.version() for engine in engines}
    return _timings("engines", "circuit", {}, {}, notes)


def _measured(case: Case, engines: Iterable[Engine], budget_s: float) -> list[Timing]:
    """Return the rows of a case, ours first; nothing where no engine answers it."""
    exact = case.exact()
    calls: dict[str, Call] = {}
    units: dict[str, int] = {}
    notes: dict[str, str] = {}
    first_ms: dict[str, float] = {}
    for engine in engines:
        batch = engine.share(case.spec, case.batch, case.what)
        if not batch:
            continue
        engine.bring()
        start = time.perf_counter()
        call = engine.call(case.circuits(batch), case.what)
        if call is None:
            continue
        answered = call()
        first_ms[engine.name] = 1e3 * (time.perf_counter() - start)
        answers = as_arrays(answered)
        largest_difference(answers, exact, engine.name, TOLERANCES[case.precision])
        calls[engine.name], units[engine.name] = call, batch
        if note := _note(case, batch, answers):
            notes[engine.name] = note
    rows = _timings(f"{case}, {_threads()}", "circuit", interleaved(calls, budget_s), units, notes)
    return _against_the_best_peer(rows, first_ms)


def _against_the_best_peer(rows: Sequence[Timing], first_ms: dict[str, float]) -> list[Timing]:
    """Return the rows with ratios to the quickest peer, and the first calls.

    Args:
        rows: of one case.
        first_ms: milliseconds of each engine's first call.

    Returns:
        The same rows; a ratio below 1 is an engine of ours that is quicker than each peer. Without a peer: no ratio.
    """
    ours = {engine.name for engine in OURS}
    best = min((row.median_us for row in rows if row.engine not in ours and row.median_us), default=None)
    return [
        replace(row, ratio=row.median_us / best if row.median_us and best else None, first_ms=first_ms.get(row.engine))
        for row in rows
    ]


def _note(case: Case, batch: int, answers: Arrays) -> str:
    """Return in words what sets an engine apart: it takes a part of the batch, or computes in another precision."""
    notes = [f"{batch} a call"] if batch < case.batch else []
    if case.precision == "float32" and answers[0].dtype in (np.float64, np.complex128):
        notes.append("float64")
    return ", ".join(notes)


def _threads() -> str:
    threads = torch.get_num_threads()
    return f"{threads} thread" if threads == 1 else f"{threads} threads"
