"""Measure the seconds and memory of circuits over qubits, depth or shots.

One core throughout, as an actor has it. Sizes take turns, so that a busy moment slows all of them alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qsgd_ray.bench.timing import one_thread
from qsgd_ray.circuits.aer.noise import Noise
from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import CircuitCurve, Limits
from qsgd_ray.limits._timing import Call, in_turns, peak_bytes, spread
from qsgd_ray.limits.rows import Row, Size

MEMORY_BYTES = 2**36  # of one circuit: the curve says how large it gets
COMPARED = 256  # circuits whose sampled or noisy answers are compared with the exact ones


def measure(limits: Limits, curve: CircuitCurve, sizes: list[Size]) -> Iterator[tuple[Size, Row]]:
    """Yield the rows of these sizes when all of them are measured. CircuitError: Aer is not installed for noise."""
    with one_thread(), torch.inference_mode():
        calls: dict[str, Call] = {}
        rows: dict[str, Row] = {}
        for size in sizes:
            spec, shots = _at(curve, size)
            backend = _backend(curve, shots, limits.seed)
            calls[str(size)] = call = _submission(backend, spec, _angles(spec, curve.batch, limits.seed))
            call()  # what is made once stays
            rows[str(size)] = {
                "per": "call",
                "engine": curve.engine,
                "n_qubits": spec.n_qubits,
                "depth": spec.depth,
                "entangle": spec.entangle,
                "batch": curve.batch,
                "shots": shots,
                "noise": curve.noise and curve.noise.model_dump_json(exclude_defaults=True),
                "peak_bytes": peak_bytes(call) if curve.engine == "torch" else None,
                **_beside_exact(curve, backend, spec, limits.seed),
            }
        seconds = in_turns(calls, limits.budget_s)
    for size in sizes:
        yield size, rows[str(size)] | spread(seconds[str(size)])


def _at(curve: CircuitCurve, size: Size) -> tuple[CircuitSpec, int | None]:
    """Return the circuit and the shots of one size."""
    fields: dict[str, Any] = {"n_qubits": curve.n_qubits, "depth": curve.depth, "shots": curve.shots}
    fields[curve.along] = size
    return CircuitSpec(fields["n_qubits"], fields["depth"], curve.entangle), fields["shots"]


def _backend(curve: CircuitCurve, shots: int | None, seed: int) -> CircuitBackend:
    if curve.engine == "noise":
        assert curve.noise is not None
        noise = Noise(**curve.noise.model_dump())
        return make_backend("noise", noise=noise, shots=shots, seed=seed, threads=1, memory_bytes=MEMORY_BYTES)
    if curve.engine == "shots":
        return make_backend("shots", shots=shots, seed=seed, memory_bytes=MEMORY_BYTES)
    return make_backend(curve.engine, memory_bytes=MEMORY_BYTES)


def _submission(backend: CircuitBackend, spec: CircuitSpec, angles: Tensor) -> Call:
    return lambda: backend.submit(spec, angles).result()


def _angles(spec: CircuitSpec, batch: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64)


def _beside_exact(curve: CircuitCurve, backend: CircuitBackend, spec: CircuitSpec, seed: int) -> Row:
    """Return the distance of sampled answers from exact ones, and the part of the exact ones that noise leaves."""
    if curve.engine in ("torch", "chain"):
        return {}
    n = COMPARED if curve.engine == "shots" and spec.n_qubits <= 10 else curve.batch
    angles = _angles(spec, n, seed + 1)
    answer, exact = backend.submit(spec, angles).result(), make_backend("auto").submit(spec, angles).result()
    if curve.engine == "shots":
        return {"error": float((answer - exact).square().mean().sqrt())}
    return {"kept": float((answer * exact).sum() / exact.square().sum())}  # the slope of a line through 0
