"""Time exact simulation against Qiskit, Aer, PennyLane and qulacs; `auto` and long chains (`qsgd-ray bench circuits`).

The engines of a case are compared before they are timed: a wrong one raises an error and gives no row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qsgd_ray.bench import _peers as peers
from qsgd_ray.bench.rows import Timing, _timings
from qsgd_ray.bench.timing import interleaved
from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import statevector
from qsgd_ray.config.circuit import Readout

# (qubits, batch): as the table that set the goals.
_STATES = ((4, 4096), (8, 1024), (12, 128), (16, 16))
# A slow peer simulates fewer circuits of the batch; its time a circuit does not depend on how many.
_MOST_OF_A_LOOP = {"Qiskit Statevector": 2**18, "qulacs": 2**21}
_WIDE: tuple[tuple[CircuitSpec, Readout], ...] = (
    (CircuitSpec(20), "z"),
    (CircuitSpec(20, 2, "ring"), "z"),
    (CircuitSpec(20, 3, "ring"), "z"),
    (CircuitSpec(20, 7), "z"),
    (CircuitSpec(20), "probability"),
    (CircuitSpec(20, 2, "ring"), "probability"),
    (CircuitSpec(22, 2, "all"), "z"),
    (CircuitSpec(24), "z"),
)
# A peer that takes minutes for one state tells nothing that smaller states do not.
_MOST_QUBITS = {"PennyLane": 20}
_CHAINS = (64, 128, 256, 512, 1024, 2048, 4096)
_NEEDS = {
    "Qiskit Statevector": "qiskit",
    "Aer": "qiskit_aer",
    "Aer matrix-product state": "qiskit_aer",
    "PennyLane": "pennylane",
    "qulacs": "qulacs",
}
_TOLERANCE = 1e-10


def cases(budget_s: float = 2.0, quick: bool = False) -> Iterator[list[Timing]]:
    """Yield the rows of each case as soon as it ends.

    Args:
        budget_s: seconds that a case's rounds may take.
        quick: leave out the largest cases.
    """
    with torch.inference_mode():
        for n_qubits, batch in _STATES[:2] if quick else _STATES:
            yield _final_states(CircuitSpec(n_qubits), batch, budget_s)
        for spec, readout in _WIDE[:1] if quick else _WIDE:
            yield _wide(spec, readout, budget_s)
        yield _chains_against_aer(CircuitSpec(40 if quick else 100), 128 if quick else 1024, budget_s)
        yield _linear_time(_CHAINS[:3] if quick else _CHAINS, budget_s)


def _final_states(spec: CircuitSpec, batch: int, budget_s: float) -> list[Timing]:
    """Time exact final states, complex128: microseconds a circuit."""
    angles = _some_angles(spec, batch)
    makers: dict[str, Callable[..., peers.Call]] = {
        "PennyLane": peers.pennylane_batched,
        "Aer": peers.aer_runtime_binding,
        "Qiskit Statevector": peers.qiskit_statevector,
        "qulacs": peers.qulacs_loop,
    }
    calls: dict[str, Callable[[], NDArray[np.complex128]]] = {"qsgd-ray": lambda: statevector(spec, angles).numpy()}
    units, notes = {"qsgd-ray": batch}, {}
    exact = calls["qsgd-ray"]()
    for engine, make in makers.items():
        if find_spec(_NEEDS[engine]) is None:
            notes[engine] = _missing(engine)
            continue
        units[engine] = min(batch, max(1, _MOST_OF_A_LOOP.get(engine, batch << spec.n_qubits) >> spec.n_qubits))
        calls[engine] = make(spec, angles[: units[engine]])
        _require_agreement(engine, calls[engine](), exact[: units[engine]])
    case = f"final state, {spec.n_qubits} qubits, depth {spec.depth}, batch {batch}"
    return _timings(case, "circuit", interleaved(calls, budget_s), units, notes)


def _wide(spec: CircuitSpec, readout: Readout, budget_s: float) -> list[Timing]:
    """Time one circuit of 20 qubits and more behind the protocol: the pick of `auto`, and the other engines."""
    angles = _some_angles(spec, 1)
    auto = AutoBackend()
    torch_alone = TorchBackend()
    calls: dict[str, Callable[[], NDArray[np.float64]]] = {
        "auto": lambda: auto.submit(spec, angles, readout).result().numpy(),
        "torch statevector": lambda: torch_alone.submit(spec, angles, readout).result().numpy(),
    }
    notes = {"auto": f"picked {auto.pick(spec, 1, readout).name}"}
    exact = calls["auto"]()
    if find_spec(_NEEDS["Aer"]) is None:
        notes["Aer"] = _missing("Aer")
    else:
        aer = AerBackend("statevector", threads=torch.get_num_threads())
        calls["Aer"] = lambda: aer.submit(spec, angles, readout).result().numpy()
    if spec.n_qubits <= _MOST_QUBITS["PennyLane"]:
        if find_spec(_NEEDS["PennyLane"]) is None:
            notes["PennyLane"] = _missing("PennyLane")
        else:
            states = peers.pennylane_batched(spec, angles)
            calls["PennyLane"] = lambda: _read(states(), spec, readout)
    for engine, call in calls.items():
        _require_agreement(engine, call(), exact)
    case = f"{readout}, {spec.n_qubits} qubits, depth {spec.depth}, {spec.entangle}, batch 1"
    return _timings(case, "circuit", interleaved(calls, budget_s), dict.fromkeys(calls, 1), notes)


def _chains_against_aer(spec: CircuitSpec, batch: int, budget_s: float) -> list[Timing]:
    """Time the chain engine against the matrix-product state of Aer: every <Z_i>."""
    angles = _some_angles(spec, batch)
    calls: dict[str, Callable[[], NDArray[np.float64]]] = {"chain": lambda: chain.expectations(spec, angles).numpy()}
    units, notes = {"chain": batch}, {}
    engine = "Aer matrix-product state"
    if find_spec(_NEEDS[engine]) is None:
        notes[engine] = _missing(engine)
    else:
        units[engine] = min(batch, 16)
        calls[engine] = peers.aer_matrix_product_state(spec, angles[: units[engine]])
        difference = _require_agreement(engine, calls[engine](), calls["chain"]()[: units[engine]])
        notes[engine] = f"differs by {difference:.1e}"
    case = f"<Z> of a chain, {spec.n_qubits} qubits, depth {spec.depth}, batch {batch}"
    return _timings(case, "circuit", interleaved(calls, budget_s), units, notes)


def _linear_time(lengths: tuple[int, ...], budget_s: float, batch: int = 64) -> list[Timing]:
    """Time the chain engine at these numbers of qubits (two or more); fit the exponent p of time ~ qubits**p."""
    calls: dict[str, Callable[[], object]] = {}
    for n_qubits in lengths:
        spec = CircuitSpec(n_qubits)
        angles = _some_angles(spec, batch)
        calls[f"chain, {n_qubits} qubits"] = lambda spec=spec, angles=angles: chain.expectations(spec, angles)  # type: ignore[misc]
    rows = _timings(
        f"<Z> of long chains, depth 2, batch {batch}",
        "circuit",
        interleaved(calls, budget_s),
        dict.fromkeys(calls, batch),
    )
    exponent = np.polyfit(np.log(lengths), np.log([row.median_us or math.nan for row in rows]), 1)[0]
    *others, last = rows
    return [*others, Timing(**(vars(last) | {"note": f"time ~ qubits^{exponent:.2f}"}))]


def _some_angles(spec: CircuitSpec, batch: int) -> torch.Tensor:
    """Return normal angles, (batch, d, n, r) float64 radians, the same at every call."""
    generator = torch.Generator().manual_seed(2511)
    return torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64)


def _read(states: NDArray[np.complex128], spec: CircuitSpec, readout: Readout) -> NDArray[np.float64]:
    p, n_qubits = np.abs(states) ** 2, spec.n_qubits
    if readout == "probability":
        weights: NDArray[np.float64] = p[:, :n_qubits].sum(1, keepdims=True)
        return weights
    p = p.reshape(len(p), *[2] * n_qubits)
    expectations = []
    for qubit in range(n_qubits):
        marginal = p.sum(tuple(axis for axis in range(1, n_qubits + 1) if axis != n_qubits - qubit))
        expectations.append(marginal[:, 0] - marginal[:, 1])
    return np.stack(expectations, 1)


def _require_agreement(engine: str, answer: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return the largest difference; AssertionError where rounding does not explain it."""
    difference = float(np.abs(answer - exact).max())
    if not difference < _TOLERANCE:
        raise AssertionError(f"{engine} differs from qsgd-ray by {difference:.1e}")
    return difference


def _missing(engine: str) -> str:
    return f"not installed: {_NEEDS[engine].replace('_', '-')}, in the extra `bench`"
