"""The work of an engine: calls, steps and multiplications that a circuit takes, counted from its shape."""

from __future__ import annotations

from typing import NamedTuple

from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.programs.run import circuits_together
from qsgd_ray.circuits.spec import CircuitSpec

# What the chain's sweeps in Python take for one step and one multiplication of its kernel (2026-11-22 and 2026-12-01).
_PYTHON_STEPS, _PYTHON_MULTIPLICATIONS = 1500, 24


class EngineWork(NamedTuple):
    """The work of one circuit of a batch, as `engine_work` counts it.

    Each method has a time for a call, for a step and for a multiplication, fitted to timings (_costs.py). The
    prediction for one circuit, in microseconds, is their sum weighted by this work:

        calls * call_us + steps * step_us + multiplications * multiplication_us

    Attributes:
        method: how the engine computes: "statevector" (torch), "chain" or "aer".
        calls: calls of the engine, as a share in (0, 1]: a call is shared by the circuits of the batch, with chain by
            those of a chunk.
        steps: operations whose time hardly depends on the number of circuits or qubits, > 0, as a share of those that
            circuits do together; 1 with Aer, which works through the circuits one by one.
        multiplications: of complex numbers, > 0, roughly; they are not shared.

    Example:
        >>> work = engine_work("torch", CircuitSpec(8, depth=2, entangle="ring"), batch=64)
        >>> work.method, 64 * work.calls, 8 * work.steps  # one call; 8 circuits are turned together, by 32 rotations
        ('statevector', 1.0, 32.0)
        >>> work.multiplications  # ((d - 1) * n * r + 8) * 2**n
        6144.0
    """

    method: str
    calls: float
    steps: float
    multiplications: float


def engine_work(name: str, spec: CircuitSpec, batch: int) -> EngineWork:
    """Count the work of one circuit of a batch.

    torch and Aer share a call between all of a batch, chain between those of its largest chunk; Aer works through the
    circuits one by one.

    Args:
        name: "torch", "chain" or "aer".
        spec: the circuit: n qubits, depth d.
        batch: number of circuits; 0 counts as 1.

    Returns:
        The work of one circuit.
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
        multiplications = chain.cost(spec) * (1 + depth / n)
        if not chain.has_kernel(spec):
            steps, multiplications = _PYTHON_STEPS * steps, _PYTHON_MULTIPLICATIONS * multiplications
        return EngineWork("chain", 1 / shared, steps / shared, multiplications)
    # The rotations of the first layer turn single qubits; the product of these, and what is read, take some more.
    turns = depth * n * len(spec.rotations)
    multiplications = (turns - n * len(spec.rotations) + 8) * states
    return EngineWork("statevector", 1 / batch, turns / min(batch, circuits_together(n)), multiplications)
