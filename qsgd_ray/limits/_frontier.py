"""Where it ends: the rows of a study of limits in; what circuits of any size cost, and the largest worth it, out.

One fit for each way to answer (contraction, gates, chain), over all rows of it: qubits, depths, entanglements, batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from qsgd_ray.circuits.memory import needed_bytes
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.limits._curves import SECONDS, FittedCurve, circuit_terms, spec_of, way_of
from qsgd_ray.limits._fits import Fit, Prediction, ScalingError, fit_sum
from qsgd_ray.limits.rows import LimitsTables, Row

# Beyond, no float holds the number of amplitudes; and no chain is as long.
MOST_QUBITS = {"torch": 512, "chain": 2**40}
Engine = Literal["torch", "chain"]


class Standing(NamedTuple):
    """How far a figure can be relied on: `measured`, `interpolated` or `extrapolated`, and beyond what."""

    word: str
    beyond: str | None = None

    def __str__(self) -> str:
        return self.word if self.beyond is None else f"{self.word} beyond {self.beyond}"


MEASURED, INTERPOLATED = Standing("measured"), Standing("interpolated")


@dataclass(frozen=True)
class CircuitCosts:
    """Seconds of a call to an engine on one core, for any circuit and batch."""

    fits: dict[str, Fit]
    rows: dict[str, list[Row]]

    def seconds(self, engine: Engine, spec: CircuitSpec, batch: int) -> Prediction:
        """ScalingError: nothing was measured of the way that answers this circuit."""
        way = way_of(engine, spec, batch)
        if way not in self.fits:
            raise ScalingError(f"circuits: nothing measured of {way}, the way of {engine} for {spec}")
        terms = circuit_terms(engine, spec, batch)
        return self.fits[way].predict(terms.values, terms.reach or 0.0)

    def standing(self, engine: Engine, spec: CircuitSpec, batch: int) -> Standing:
        """Of `seconds`: against what was measured of the same way."""
        rows = self.rows.get(way_of(engine, spec, batch), [])
        asked = {"n_qubits": spec.n_qubits, "depth": spec.depth, "batch": batch}
        if any(spec_of(row) == spec and row["batch"] == batch for row in rows):
            return MEASURED
        same = [row for row in rows if row["entangle"] == spec.entangle]
        if not same:
            return Standing("extrapolated", f"the entanglements measured, to {spec.entangle}")
        beyond = [f"{largest:,} {words}" for words, largest in _passed(asked, same)]
        return Standing("extrapolated", " and ".join(beyond)) if beyond else INTERPOLATED


def circuit_costs(tables: LimitsTables) -> CircuitCosts:
    """From every row of torch and chain; a way with too few rows is left out."""
    rows: dict[str, list[Row]] = {}
    for row in tables.sizes.to_pylist():
        if row["kind"] == "circuits" and row["engine"] in ("torch", "chain"):
            rows.setdefault(way_of(row["engine"], spec_of(row), row["batch"]), []).append(row)
    fits = {}
    for way, mine in rows.items():
        terms = [circuit_terms(row["engine"], spec_of(row), row["batch"]) for row in mine]
        values = np.array([term.values for term in terms], dtype=np.float64)
        reach = np.array([term.reach for term in terms], dtype=np.float64)
        if len(mine) > values.shape[1]:
            fits[way] = fit_sum(values, np.array([row[SECONDS] for row in mine]), reach)
    return CircuitCosts(fits, rows)


class End(NamedTuple):
    """The largest number of qubits before a limit; `low` ... `high` by the interval of the fit. 0: not even one."""

    n_qubits: int
    low: int
    high: int
    standing: Standing


def overhead_ends(
    costs: CircuitCosts, engine: Engine, entangle: str, depth: int, n_circuits: int, allowed_s: float
) -> End:
    """At how many qubits `n_circuits` circuits, one after the other on one core, take more than `allowed_s`."""

    def at(edge: Callable[[Prediction], float]) -> int:
        def holds(n: int) -> bool:
            return edge(costs.seconds(engine, _spec(n, depth, entangle), n_circuits)) <= allowed_s

        return largest(holds, MOST_QUBITS[engine])

    n = at(lambda p: p.value)
    standing = costs.standing(engine, _spec(max(1, n), depth, entangle), n_circuits)
    return End(n, at(lambda p: p.high), at(lambda p: p.low), standing)


def memory_ends(there_bytes: int) -> int:
    """The most qubits whose state can be simulated in so many bytes."""
    return largest(lambda n: needed_bytes(n) <= there_bytes, most=4096)


def largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest whole number for which `holds`, which holds up to some number and never after; at most `most`."""
    if not holds(1):
        return 0
    low, high = 1, 2
    while high <= most and holds(high):
        low, high = high, 2 * high
    if low == most:
        return most
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


class Fading(NamedTuple):
    """How a signal fades: `halves_every` so many qubits, below `small` from qubit `small_from` on."""

    halves_every: float
    small: float
    small_from: int


def fading(fitted: FittedCurve, small: float = 1e-3) -> Fading | None:
    """Of a curve of signal over positions; None where it has no fit, or does not fade."""
    if fitted.fit is None:
        return None
    start, slope = fitted.fit.coefficients
    if slope >= 0:
        return None
    return Fading(math.log(2) / -slope, small, max(0, math.ceil((math.log(small) - start) / slope)))


def _spec(n_qubits: int, depth: int, entangle: str) -> CircuitSpec:
    return CircuitSpec(n_qubits, depth, entangle)  # type: ignore[arg-type]


def _passed(asked: dict[str, int], rows: list[Row]) -> list[tuple[str, int]]:
    """The numbers that are larger than any measured, in words, with the largest measured."""
    words = {"n_qubits": "qubits", "depth": "layers", "batch": "circuits at a time"}
    edges = {name: max(row[name] for row in rows) for name in asked}
    return [(words[name], edges[name]) for name, value in asked.items() if value > edges[name]]
