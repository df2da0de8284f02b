"""The work of an engine: calls, steps and multiplications that a circuit takes, counted from its shape."""

from __future__ import annotations

from typing import NamedTuple

from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate as statevector

# Multiplications that take as long as making one site of a contraction: sines, gates, and many small moves between.
_MULTIPLICATIONS_A_SITE = 16


class EngineWork(NamedTuple):
    """The work of one circuit of a batch, as `engine_work` counts it.

    Each method has a time for a call, for a step and for a multiplication, fitted to timings (_costs.py). The
    prediction for one circuit, in microseconds, is their sum weighted by this work:

        calls * call_us + steps * step_us + multiplications * multiplication_us

    Attributes:
        method: how the engine computes: "gates" or "contraction" (both of torch), "chain" or "aer".
        calls: calls of the engine, as a share in (0, 1]: a call is shared by the circuits of a chunk, with Aer by the
            whole batch.
        steps: series of tensor operations whose time hardly depends on the batch, > 0, as a share of the chunk's; 1
            with Aer, which works through the circuits one by one.
        multiplications: of complex numbers, > 0, roughly; they are not shared.

    Example:
        >>> work = engine_work("torch", CircuitSpec(8, depth=2, entangle="ring"), batch=64)
        >>> work.method, 64 * work.calls, 64 * work.steps  # one call of 16 steps for all 64 circuits
        ('gates', 1.0, 16.0)
        >>> work.multiplications  # (d - 1/2) * n * 8 * 2**n
        24576.0
    """

    method: str
    calls: float
    steps: float
    multiplications: float


def engine_work(name: str, spec: CircuitSpec, batch: int) -> EngineWork:
    """Count the work of one circuit of a batch.

    torch shares a call between the circuits of a chunk that fits the cache, chain between all of a batch (up to its
    largest chunk); Aer works through the circuits one by one.

    Args:
        name: "torch", "chain" or "aer".
        spec: the circuit: n qubits, depth d.
        batch: number of circuits; 0 counts as 1.

    Returns:
        The work of one circuit. Gates: (d - 1/2) * n * 8 * 2**n multiplications; the other methods: see the code.
    """
    n, depth, states = spec.n_qubits, spec.depth, 2.0 ** min(spec.n_qubits, 1000)  # a float ends at 2**1024
    batch = max(1, batch)
    if name == "aer":
        gates = n * (1 + depth * len(spec.rotations)) + depth * len(spec.cnots())
        return EngineWork("aer", 1 / batch, 1, gates * (states + 200))  # a gate takes time before it touches a state
    if name == "chain":
        shared = min(batch, chain.CHUNK_CIRCUITS)
        sweeps = {"none": depth, "chain": 4 * depth**2, "all": 4 * depth**2, "ring": 6 * depth**2}[spec.entangle]
        steps = sweeps + (0 if spec.entangle == "none" else n / 4)
        return EngineWork("chain", 1 / shared, steps / shared, chain.cost(spec) * (1 + depth / n))
    shared = min(batch, statevector.circuits_per_chunk(n))
    if statevector.prefers_contraction(spec):
        bond = 2 ** (depth - 1) if spec.entangle == "chain" and n > 1 else 1
        sites = _MULTIPLICATIONS_A_SITE * n + 4 * 2 ** ((n + 1) // 2)
        return EngineWork("contraction", 1 / shared, depth * n / shared, 4 * bond * states + 4 * bond**2 * sites)
    return EngineWork("gates", 1 / shared, depth * n / shared, (depth - 0.5) * n * 8 * states)
