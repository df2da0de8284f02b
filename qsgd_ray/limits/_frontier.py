"""Find where the method ends: the cost of circuits of any size, and the largest that is worth it.

One fit for each way to answer (statevector, chain), over all rows of it: qubits, depths, entanglements, batches.
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
    """Reliability of a figure: `measured`, `interpolated` or `extrapolated`, and beyond what."""

    word: str
    beyond: str | None = None

    def __str__(self) -> str:
        return self.word if self.beyond is None else f"{self.word} beyond {self.beyond}"


MEASURED, INTERPOLATED = Standing("measured"), Standing("interpolated")


@dataclass(frozen=True)
class CircuitCosts:
    """Seconds of a call to an engine on one core, for any circuit and batch.

    Attributes:
        fits: a fit by way.
        rows: the measured rows by way.
    """

    fits: dict[str, Fit]
    rows: dict[str, list[Row]]

    def seconds(self, engine: Engine, spec: CircuitSpec, batch: int) -> Prediction:
        """Predict the seconds of a call. ScalingError: nothing was measured of the way that answers this circuit."""
        way = way_of(engine, spec, batch)
        if way not in self.fits:
            raise ScalingError(f"circuits: nothing measured of {way}, the way of {engine} for {spec}")
        terms = circuit_terms(engine, spec, batch)
        return self.fits[way].predict(terms.values, terms.reach or 0.0)

    def standing(self, engine: Engine, spec: CircuitSpec, batch: int) -> Standing:
        """Return how far `seconds` can be relied on, by the rows measured of the same way."""
        rows = self.rows.get(way_of(engine, spec, batch), [])
        size = {"n_qubits": spec.n_qubits, "depth": spec.depth, "batch": batch}
        if any(spec_of(row) == spec and row["batch"] == batch for row in rows):
            return MEASURED
        same = [row for row in rows if row["entangle"] == spec.entangle]
        if not same:
            return Standing("extrapolated", f"the entanglements measured, to {spec.entangle}")
        beyond = [f"{largest:,} {words}" for words, largest in _passed(size, same)]
        return Standing("extrapolated", " and ".join(beyond)) if beyond else INTERPOLATED


def circuit_costs(tables: LimitsTables) -> CircuitCosts:
    """Return the costs fitted to every row of torch and chain; a way with too few rows is left out."""
    rows: dict[str, list[Row]] = {}
    for row in tables.sizes.to_pylist():
        if row["kind"] == "circuits" and row["engine"] in ("torch", "chain"):
            rows.setdefault(way_of(row["engine"], spec_of(row), row["batch"]), []).append(row)
    fits = {}
    for way, way_rows in rows.items():
        terms = [circuit_terms(row["engine"], spec_of(row), row["batch"]) for row in way_rows]
        values = np.array([term.values for term in terms], dtype=np.float64)
        reach = np.array([term.reach for term in terms], dtype=np.float64)
        if len(way_rows) > values.shape[1]:
            fits[way] = fit_sum(values, np.array([row[SECONDS] for row in way_rows]), reach)
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
    """Return the qubits at which `n_circuits` circuits on one core, one after the other, take `allowed_s` seconds."""

    def at(edge: Callable[[Prediction], float]) -> int:
        def holds(n: int) -> bool:
            return edge(costs.seconds(engine, _spec(n, depth, entangle), n_circuits)) <= allowed_s

        return largest(holds, MOST_QUBITS[engine])

    n = at(lambda p: p.value)
    standing = costs.standing(engine, _spec(max(1, n), depth, entangle), n_circuits)
    return End(n, at(lambda p: p.high), at(lambda p: p.low), standing)


def memory_ends(there_bytes: int) -> int:
    """Return the most qubits whose state can be simulated in so many bytes."""
    return largest(lambda n: needed_bytes(n) <= there_bytes, most=4096)


def largest(holds: Callable[[int], bool], most: int) -> int:
    """Return the largest whole number up to `most` for which `holds`; it holds up to some number, never after."""
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
    """Fading of a signal: it halves every `halves_every` qubits, and is below `small` from qubit `small_from` on."""

    halves_every: float
    small: float
    small_from: int


def fading(fitted: FittedCurve, small: float = 1e-3) -> Fading | None:
    """Return the fading of a signal over positions; None where there is no fit, or no fading."""
    if fitted.fit is None:
        return None
    start, slope = fitted.fit.coefficients
    if slope >= 0:
        return None
    return Fading(math.log(2) / -slope, small, max(0, math.ceil((math.log(small) - start) / slope)))


def _spec(n_qubits: int, depth: int, entangle: str) -> CircuitSpec:
    return CircuitSpec(n_qubits, depth, entangle)  # type: ignore[arg-type]


def _passed(size: dict[str, int], rows: list[Row]) -> list[tuple[str, int]]:
    """Return the numbers beyond any measured, in words, with the largest measured."""
    words = {"n_qubits": "qubits", "depth": "layers", "batch": "circuits at a time"}
    edges = {name: max(row[name] for row in rows) for name in size}
    return [(words[name], edges[name]) for name, value in size.items() if value > edges[name]]
