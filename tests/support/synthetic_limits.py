"""Studies of limits whose laws are known: rows by formula, none measured."""

import numpy as np

from qsgd_ray.config import CircuitCurve, Limits, OptimizerCurve, PoolCurve, SignalCurve, TrainingCurve
from qsgd_ray.limits._curves import SECONDS, circuit_terms, spec_of, way_of
from qsgd_ray.limits.rows import LimitsResults, _sizes_of

# Seconds a call, a step and a multiplication.
COSTS = {"statevector": (2e-4, 3e-5, 4e-10), "chain": (1e-4, 2e-5, 2e-9)}
POOL = (1e-3, 2e-4, 1e-6, 1e-5)  # seconds a call, an actor, a circuit, a circuit of an actor
SIGNAL = (-1.0, -0.5)  # of the logarithm: at 0, and a qubit
PROVENANCE = {
    "hardware": {"cores": 2, "memory_bytes": 2**34, "processor": "a <b>machine</b>", "machine": "x"},
    "measured": {"matmul_flops_per_s": 1e11},
}
CURVES = (
    CircuitCurve(name="state-ring", engine="torch", entangle="ring", sizes=tuple(range(2, 23))),
    CircuitCurve(name="state-chain", engine="torch", sizes=tuple(range(2, 21))),
    CircuitCurve(name="chain", engine="chain", batch=1024, sizes=(4, 16, 64, 256, 1024, 4096)),
    CircuitCurve(name="shots", engine="shots", along="shots", sizes=(16, 64, 256, 1024, 4096)),
    OptimizerCurve(name="adamw", source=None, sizes=(1024, 4096, 16384, 65536)),
    TrainingCurve(name="training", sizes=(8, 16, 24, 32, 48, 64)),
    PoolCurve(name="pool", actors=(1, 2, 4), batches=(64, 1024, 16384)),
    SignalCurve(name="fading-1", depth=1, theta=0.5, sizes=(2, 4, 8, 16, 32)),
    SignalCurve(name="fading-trained", theta="trained", sizes=(2, 4, 8, 16)),
)


def a_limits(**fields) -> Limits:
    return Limits(**{"name": "made", "question": "Where does <it> end?", "curves": CURVES} | fields)


def row_of(curve, size):
    """Return the row of a size without any scatter."""
    match curve.kind:
        case "circuits":
            at = {"n_qubits": curve.n_qubits, "depth": curve.depth, "shots": curve.shots} | {curve.along: size}
            row = at | {"engine": curve.engine, "entangle": curve.entangle, "batch": curve.batch}
            if curve.engine == "shots":
                return row | {SECONDS: 1e-3, "error": size**-0.5}
            terms = circuit_terms(curve.engine, spec_of(row), curve.batch)
            way = way_of(curve.engine, spec_of(row), curve.batch)
            peak = 40 << row["n_qubits"] if curve.engine == "torch" else None
            return row | {SECONDS: float(np.dot(terms.values, COSTS[way])), "peak_bytes": peak}
        case "optimizer":
            return {"engine": "AdamW", "n_parameters": size, SECONDS: 1e-4 + 1e-9 * size}
        case "training":
            return {"n_tokens": size, "n_tensors": 26, SECONDS: 4e-3 + 1e-4 * size}
        case "pool":
            actors, batch = size
            seconds = np.dot(POOL, (1, actors, batch, batch / min(actors, 2)))
            common = {"n_qubits": 8, "depth": 2, "entangle": "chain"}
            return common | {"n_actors": actors, "batch": batch, SECONDS: float(seconds)}
        case "signal":
            fades = float(np.exp(SIGNAL[0] + SIGNAL[1] * size))
            row = {"position": size, "depth": curve.depth, "signal": fades}
            return row | ({"step_ratio": fades / 1000} if curve.theta == "trained" else {})


def made(path, limits=None, scatter=0.0, seed=0) -> LimitsResults:
    """A folder of rows by formula, each time off by a factor of about `scatter`."""
    limits = limits or a_limits()
    results = LimitsResults(path)
    results.open(limits, PROVENANCE)
    draw = np.random.default_rng(seed)
    for curve in limits.curves:
        for size in _sizes_of(curve):
            row = row_of(curve, size)
            if SECONDS in row:
                row[SECONDS] *= float(np.exp(scatter * draw.standard_normal()))
            results.write(limits, curve, size, row)
    return results
