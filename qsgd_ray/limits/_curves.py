"""Fit the laws of a study's curves: which quantity, over which terms, and how well the largest size is predicted.

The cost of a circuit is counted by the code's own counts (circuits/select/work.py: calls, steps, multiplications), so
one law serves qubits, depth, entanglement and batch; the fits find the cost of each of these on this machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.memory import needed_bytes, statevector_bytes
from qsgd_ray.circuits.programs.run import circuits_together
from qsgd_ray.circuits.select.work import engine_work
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import CircuitCurve, Curve
from qsgd_ray.config.limits import FEWEST_SIZES
from qsgd_ray.limits._fits import Array, Fit, HeldOut, Prediction, ScalingError, fit_log, fit_sum, held_out
from qsgd_ray.limits.rows import LimitsTables, Row

# The cost of a call is the lower quartile of its rounds. On a machine that others use too, some rounds take up to twice
# as long for seconds, which is no cost of the call; a whole quarter of the rounds is seldom disturbed.
SECONDS = "low_s"
# One to predict, and two more than terms to fit.
ENOUGH_SIZES = 6
# States below this are not seen among what else a process holds.
SEEN_BYTES = 2**22


class Terms(NamedTuple):
    """Values of the terms of a size, and the bytes that its work goes through again and again; None: no knee."""

    values: tuple[float, ...]
    reach: float | None = None


@dataclass(frozen=True)
class Law:
    """Law of one column of a curve.

    Attributes:
        quantity: the column.
        words: the formula, its terms in order.
        terms: function from a row to its terms.
        logarithmic: whether the logarithm is a line of the terms.
    """

    quantity: str
    words: str
    terms: Callable[[Row], Terms]
    logarithmic: bool = False

    def table(self, rows: list[Row]) -> tuple[Array, Array, Array | None]:
        """Return the terms, the measurements and the reaches of these rows."""
        terms_by_row = [self.terms(row) for row in rows]
        reaches = [term.reach for term in terms_by_row if term.reach is not None]
        terms = np.array([term.values for term in terms_by_row], dtype=np.float64)
        reach = np.array(reaches, dtype=np.float64) if len(reaches) == len(rows) else None
        return terms, np.array([row[self.quantity] for row in rows], dtype=np.float64), reach

    def fit(self, rows: list[Row]) -> Fit:
        """Fit the law to these rows."""
        terms, measured, reach = self.table(rows)
        return fit_log(terms, measured) if self.logarithmic else fit_sum(terms, measured, reach)

    def predict(self, fit: Fit, row: Row) -> Prediction:
        """Predict the quantity of a row from a fit of this law."""
        terms = self.terms(row)
        return fit.predict(terms.values, terms.reach or 0.0)


@dataclass(frozen=True)
class FittedCurve:
    """A curve with its fits; all None where `why_not` says why there is no fit.

    Attributes:
        curve: the curve.
        law: its law.
        rows: its measured rows.
        before: the fit without the largest size.
        fit: the fit with it, for sizes beyond.
        held: the prediction for the largest size.
        largest: that size's row.
        why_not: the reason for no fit.
    """

    curve: Curve
    law: Law
    rows: list[Row]
    before: Fit | None = None
    fit: Fit | None = None
    held: HeldOut | None = None
    largest: Row | None = None
    why_not: str | None = None


def fitted_curves(tables: LimitsTables) -> list[FittedCurve]:
    """Return every curve with its fits, in the study's order; a curve without enough rows says so."""
    every = tables.sizes.to_pylist()
    cores = int(tables.provenance["hardware"]["cores"])
    return [
        _fitted(curve, law, [row for row in every if row["curve"] == curve.name and row[law.quantity] is not None])
        for curve in tables.limits.curves
        for law in laws(curve, cores)
    ]


def laws(curve: Curve, cores: int) -> list[Law]:
    """Return the laws of a curve of this kind."""
    match curve.kind:
        case "circuits":
            return _circuit_laws(curve)
        case "optimizer":
            return [Law(SECONDS, "a + b parameters", lambda row: Terms((1, row["n_parameters"]), _state_bytes(row)))]
        case "training":
            return [Law(SECONDS, "a + b tokens + c tokens²", _tokens)]
        case "pool":
            words = "a + b actors + c circuits + d circuits / min(actors, cores)"
            return [Law(SECONDS, words, lambda row: _shared(row, cores))]
        case "signal":
            quantities = ["signal", *(["step_ratio"] if curve.theta == "trained" else [])]
            return [Law(name, "exp(a − b k)", lambda row: Terms((1, row["position"])), True) for name in quantities]


def size_of(curve: Curve, row: Row) -> float:
    """Return the size that the horizontal axis shows."""
    if curve.kind == "circuits":
        return float(row[curve.along])
    column = {"optimizer": "n_parameters", "training": "n_tokens", "pool": "batch", "signal": "position"}[curve.kind]
    return float(row[column])


def spec_of(row: Row) -> CircuitSpec:
    """Return the circuit of a row."""
    return CircuitSpec(row["n_qubits"], row["depth"], row["entangle"])


def circuit_terms(engine: str, spec: CircuitSpec, batch: int) -> Terms:
    """Return the terms of a call to torch or chain: calls, steps, multiplications; bytes of a chunk."""
    work = engine_work(engine, spec, batch)
    values = (work.calls * batch, work.steps * batch, work.multiplications * batch)
    if engine == "torch":
        together = min(batch, circuits_together(spec.n_qubits))
        return Terms(values, float(statevector_bytes(spec.n_qubits) * together))
    numbers = 16 * len(spec.rotations) * spec.depth + 6 * (16.0 if spec.entangle == "ring" else 4.0) ** (spec.depth - 1)
    most = chain.CHUNK_BYTES * (8 if spec.entangle == "ring" else 1)
    return Terms(values, min(float(most), 8 * numbers * spec.n_qubits * min(batch, chain.CHUNK_CIRCUITS)))


def way_of(engine: str, spec: CircuitSpec, batch: int) -> str:
    """Return the way by which an engine answers: statevector or chain."""
    return engine_work(engine, spec, batch).method


def _circuit_laws(curve: CircuitCurve) -> list[Law]:
    if curve.engine in ("torch", "chain"):
        # Of a ring few depths can be measured: they are fitted without what a call costs.
        few = curve.along == "depth" and len(curve.sizes) < ENOUGH_SIZES
        first, words = (1, "a steps + b multiplications") if few else (0, "a + b steps + c multiplications")

        def terms(row: Row) -> Terms:
            every = circuit_terms(row["engine"], spec_of(row), row["batch"])
            return every._replace(values=every.values[first:])

        seconds = Law(SECONDS, words, terms)
        memory = Law("peak_bytes", "a 2ⁿ", lambda row: Terms((statevector_bytes(row["n_qubits"]),)))
        states = curve.engine == "torch" and curve.along == "n_qubits"
        seen = states and statevector_bytes(curve.sizes[-FEWEST_SIZES]) >= SEEN_BYTES
        return [seconds, memory] if seen else [seconds]
    if curve.engine == "noise":
        seconds = Law(SECONDS, "a + b gates + c gates 4ⁿ", _density)
        return [seconds, Law("kept", "exp(a − b gates)", lambda row: Terms((1, _gates(row))), True)]
    if curve.along == "shots":
        error = Law("error", "a shotsᵇ", lambda row: Terms((1, math.log(row["shots"]))), True)
        return [Law(SECONDS, "a + b shots", lambda row: Terms((1, row["shots"]))), error]
    return [Law(SECONDS, "a + b n + c 2ⁿ", _weights)]


def _gates(row: Row) -> float:
    spec = spec_of(row)
    return spec.n_qubits * (1 + spec.depth * len(spec.rotations)) + spec.depth * len(spec.cnots())


def _density(row: Row) -> Terms:
    numbers = 4.0 ** row["n_qubits"]
    return Terms((1, _gates(row), _gates(row) * numbers), 16 * numbers)


def _weights(row: Row) -> Terms:
    return Terms((1, row["n_qubits"], 2.0 ** row["n_qubits"]), float(needed_bytes(row["n_qubits"])))


def _tokens(row: Row) -> Terms:
    return Terms((1, row["n_tokens"], row["n_tokens"] ** 2))


def _state_bytes(row: Row) -> float:
    return 16.0 * row["n_parameters"]  # parameter, gradient and two moments in float32


def _shared(row: Row, cores: int) -> Terms:
    return Terms((1, row["n_actors"], row["batch"], row["batch"] / min(row["n_actors"], cores)))


def _fitted(curve: Curve, law: Law, rows: list[Row]) -> FittedCurve:
    if curve.kind == "circuits" and curve.engine in ("torch", "chain"):
        # The smallest circuits may be answered by another way than the largest: another law.
        ways = [way_of(row["engine"], spec_of(row), row["batch"]) for row in rows]
        rows = [row for row, way in zip(rows, ways, strict=True) if way == ways[-1]]
    if law.quantity == "peak_bytes":
        rows = [row for row in rows if statevector_bytes(row["n_qubits"]) >= SEEN_BYTES]
    try:
        terms, measured, reach = law.table(rows)
        if not rows:
            raise ScalingError("no size is measured yet")
        before, held = held_out(terms, measured, len(rows) - 1, reach, logarithmic=law.logarithmic)
        return FittedCurve(curve, law, rows, before, law.fit(rows), held, rows[-1])
    except ScalingError as error:
        return FittedCurve(curve, law, rows, why_not=str(error))
