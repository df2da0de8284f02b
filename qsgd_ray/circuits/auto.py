"""Which engine answers: a circuit, its batch and what is asked of it in; the quickest engine that fits, and why, out.

The choice follows from constants shipped here, so the same study picks the same engine on every machine, fast or slow.
Exact engines agree to about 1e-14, not in every bit, and the choice may change with the batch: where bits must not
depend on the size of a batch, name the engine.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits import chain, contraction, statevector
from qsgd_ray.circuits.aer import AerBackend, NoisyBackend
from qsgd_ray.circuits.backends import Answered, CircuitBackend, Pending, TorchBackend, checked_angles
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.estimator import EstimatorBackend
from qsgd_ray.circuits.kinds import Readout
from qsgd_ray.circuits.memory import needed_bytes, told
from qsgd_ray.circuits.noise import DeviceNoise, Noise
from qsgd_ray.circuits.shots import ShotsBackend
from qsgd_ray.circuits.spec import CircuitSpec

log = logging.getLogger(__name__)


class Cost(NamedTuple):
    """Of one way to answer: microseconds a call, a step (some operations whatever the batch) and a unit of work."""

    call_us: float
    step_us: float
    work_us: float


@dataclass(frozen=True)
class Costs:
    """Of every way; `gates` and `contraction` are the two of the statevector in torch."""

    gates: Cost
    contraction: Cost
    chain: Cost
    aer: Cost


# One core of an AMD EPYC with AVX2, torch 2.13, Aer 0.18.2, 2026-11-22:
# OMP_NUM_THREADS=1 python -c "from qsgd_ray.circuits.auto import measure_costs; print(measure_costs())"
# Over 224 other circuits and batches the pick took 3 % more time than the quicker of torch and chain, on average.
COSTS = Costs(
    gates=Cost(127.0, 35.0, 5.3e-4),
    contraction=Cost(99.9, 19.1, 1.84e-3),
    chain=Cost(33.4, 30.2, 2.32e-3),
    aer=Cost(1360.0, 43.3, 6.2e-3),
)


class Pick(NamedTuple):
    """`name`: the engine. `predicted_us`: microseconds a circuit of each engine that could have answered."""

    name: str
    predicted_us: dict[str, float]
    reason: str


class ChainBackend:
    """<Z_i> in process by chain.py, in float64 on the CPU, at submit: linear in n_qubits, exponential in depth.

    `memory_bytes`: what one circuit may take. CircuitError: another readout than "z"; angles of the wrong shape or not
    finite. CircuitMemoryError: the bonds of one circuit do not fit.
    """

    differentiable = True

    def __init__(self, memory_bytes: int = 2**30) -> None:
        self.memory_bytes = memory_bytes

    def submit(
        self,
        spec: CircuitSpec,
        angles_bdnr: Tensor,
        readout: Readout = "z",
        keys_b: Tensor | None = None,  # noqa: ARG002
    ) -> Pending:
        with torch.inference_mode():
            answer = self.differentiate(spec, checked_angles(spec, angles_bdnr), readout)
        return Answered(answer.clone())  # outside inference mode: a tensor like any other

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """The answers, followed by autograd: (batch, n_qubits) of the dtype of the angles."""
        if readout != "z":
            raise CircuitError(f"backend chain: got readout {readout!r}; allowed: z")
        if (needed := chain_bytes(spec)) > self.memory_bytes:
            raise CircuitMemoryError(
                f"depth: got {spec.depth}, a chain that needs {told(needed)} with {self.memory_bytes:,} there; "
                f"allowed: less depth"
            )
        return chain.expectations(spec, angles_bdnr, memory_bytes=min(self.memory_bytes, chain.CHUNK_BYTES))


class AutoBackend:
    """The quickest engine for each submission: exact ones by `pick`; Aer with `noise`; torch sampled with `shots`.

    Arguments as of NoisyBackend and ShotsBackend. `memory_bytes`: what one circuit may take, the same for every machine
    so that the choice is. CircuitError, CircuitMemoryError: as the engine; no engine can answer.
    """

    def __init__(
        self,
        shots: int | None = None,
        noise: Noise | DeviceNoise | None = None,
        seed: int = 0,
        threads: int | None = None,
        memory_bytes: int = 2**30,
        costs: Costs = COSTS,
    ) -> None:
        self.memory_bytes, self.costs = memory_bytes, costs
        self._engines: dict[str, CircuitBackend] = {}
        # Made when it is picked: importing Aer takes a second.
        self._aer = partial(AerBackend, "statevector", threads=threads, memory_bytes=memory_bytes)
        self._sampler: str | None = None
        if noise is not None:
            self._sampler = "noise"
            self._engines["noise"] = NoisyBackend(noise, shots, seed, threads=threads, memory_bytes=memory_bytes)
        elif shots is not None:
            self._sampler = "shots"
            self._engines["shots"] = ShotsBackend(shots, seed, memory_bytes)
        else:
            self._engines["torch"], self._engines["chain"] = TorchBackend(memory_bytes), ChainBackend(memory_bytes)
        self._told: set[tuple[CircuitSpec, Readout]] = set()

    @property
    def differentiable(self) -> bool:
        """Can autograd look into it? Yes, while it is exact."""
        return self._sampler is None

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        angles_bdnr = checked_angles(spec, angles_bdnr)
        name = self._picked(spec, angles_bdnr.shape[0], readout).name
        if name == "aer" and name not in self._engines:
            self._engines[name] = self._aer()
        return self._engines[name].submit(spec, angles_bdnr, readout, keys_b)

    def differentiate(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z") -> Tensor:
        """The answers, followed by autograd, of the dtype of the angles. CircuitError: they are sampled or noisy."""
        if not self.differentiable:
            raise CircuitError(f"backend auto: got a derivative of {self._sampler}; allowed: of exact answers")
        # Where Aer is the quickest, nobody looks into it.
        if self._picked(spec, angles_bdnr.shape[0], readout, {"torch", "chain"}).name == "chain":
            return ChainBackend(self.memory_bytes).differentiate(spec, angles_bdnr, readout)
        simulate = statevector.expectations if readout == "z" else statevector.weight_of_first
        return simulate(spec, angles_bdnr, memory_bytes=min(self.memory_bytes, statevector.CHUNK_BYTES))

    def pick(self, spec: CircuitSpec, batch: int, readout: Readout = "z", among: Iterable[str] | None = None) -> Pick:
        """Which engine answers so many circuits. `among`: only these. CircuitMemoryError: none fits."""
        if self._sampler is not None:
            return Pick(self._sampler, {}, f"{self._sampler} was asked for")
        here = {"torch", "chain"} | ({"aer"} if importlib.util.find_spec("qiskit_aer") else set())
        here &= here if among is None else set(among)
        why = {
            "torch": _too_large(needed_bytes(spec.n_qubits), self.memory_bytes),
            "chain": _too_large(chain_bytes(spec), self.memory_bytes) if readout == "z" else "no such readout",
            "aer": _too_large(needed_bytes(spec.n_qubits), self.memory_bytes),
        }
        left_out = [f"{name} {why[name]}" for name in sorted(here) if why[name]]
        predicted = {name: predicted_us(name, spec, batch, self.costs) for name in sorted(here) if not why[name]}
        if not predicted:
            raise CircuitMemoryError(
                f"n_qubits: got {spec.n_qubits} at depth {spec.depth}, entangle {spec.entangle}, readout {readout}; "
                f"no engine fits: {', '.join(left_out)}"
            )
        ordered = sorted(predicted, key=predicted.__getitem__)
        told = ", ".join(f"{name} {predicted[name]:.3g} us" for name in ordered)
        return Pick(ordered[0], predicted, "; ".join((f"predicted a circuit at batch {batch}: {told}", *left_out)))

    def _picked(self, spec: CircuitSpec, batch: int, readout: Readout, among: Iterable[str] | None = None) -> Pick:
        pick = self.pick(spec, batch, readout, among)
        if (spec, readout) not in self._told:
            self._told.add((spec, readout))
            log.info("%s, readout %s: %s (%s)", spec, readout, pick.name, pick.reason)
        return pick


def _too_large(needed: int, there: int) -> str:
    return f"needs {told(needed)} with {there:,} there" if needed > there else ""


def chain_bytes(spec: CircuitSpec) -> int:
    """Bytes that chain.py takes for one circuit: 4**(depth-1) numbers at a time, a ring 16**(depth-1) a qubit."""
    if spec.entangle == "none" or spec.n_qubits == 1:
        return 0
    bond = 4 ** (spec.depth - 1)
    working, kept = (6 * bond * bond, bond * bond * spec.n_qubits) if spec.entangle == "ring" else (6 * bond, 0)
    angles = 16 * len(spec.rotations) * spec.depth  # of a site: every rotation as a matrix
    return 8 * ((working + angles) * min(spec.n_qubits, 8 * spec.depth) + kept)


class Load(NamedTuple):
    """How much of each unit of a Cost a circuit takes: calls, steps and work."""

    way: str
    calls: float
    steps: float
    work: float

    def us(self, cost: Cost) -> float:
        return self.calls * cost.call_us + self.steps * cost.step_us + self.work * cost.work_us


def load(name: str, spec: CircuitSpec, batch: int) -> Load:
    """What `name` (torch, chain or aer) has to do for each of `batch` circuits. The work is counted in multiplications.

    Torch shares a call between the circuits of a chunk that fits the cache, chain.py between all of a batch; Aer works
    through them one by one.
    """
    n, depth, states = spec.n_qubits, spec.depth, 2.0 ** min(spec.n_qubits, 1000)  # a float ends at 2**1024
    batch = max(1, batch)
    if name == "aer":
        gates = n * (1 + depth * len(spec.rotations)) + depth * len(spec.cnots())
        return Load("aer", 1 / batch, 1, gates * (states + 200))  # a gate takes its time before it touches a state
    if name == "chain":
        shared = min(batch, chain.CHUNK_CIRCUITS)
        sweeps = {"none": depth, "chain": 4 * depth**2, "all": 4 * depth**2, "ring": 6 * depth**2}[spec.entangle]
        steps = sweeps + (0 if spec.entangle == "none" else n / 4)
        return Load("chain", 1 / shared, steps / shared, chain.cost(spec) * (1 + depth / n))
    shared = min(batch, statevector.circuits_at_once(n))
    if contraction.contracts(spec):
        bond = 2 ** (depth - 1) if spec.entangle == "chain" and n > 1 else 1
        work = 4 * bond * states + 4 * bond**2 * (n + 4 * 2 ** ((n + 1) // 2))
        return Load("contraction", 1 / shared, depth * n / shared, work)
    return Load("gates", 1 / shared, depth * n / shared, (depth - 0.5) * n * 8 * states)


def predicted_us(name: str, spec: CircuitSpec, batch: int, costs: Costs = COSTS) -> float:
    """Microseconds a circuit of `batch` circuits on torch, chain or aer."""
    asked = load(name, spec, batch)
    cost: Cost = getattr(costs, asked.way)
    return asked.us(cost)


def measure_costs(seconds: float = 20.0) -> Costs:
    """The costs of this machine, fitted to submissions timed in this process for about so long.

    A way that is not measured, such as Aer where it is missing, keeps the constant shipped.
    """
    engines: dict[str, CircuitBackend] = {"torch": TorchBackend(), "chain": ChainBackend()}
    if importlib.util.find_spec("qiskit_aer"):
        engines["aer"] = AerBackend("statevector", threads=torch.get_num_threads())
    asked = [
        (name, CircuitSpec(n, depth, entangle), batch)
        for n, depth in ((2, 1), (4, 2), (4, 3), (8, 1), (8, 2), (8, 4), (12, 2), (14, 1), (14, 3))
        for entangle in ("chain", "ring", "all", "none")
        for batch in (1, 16, 256)
        for name in engines
        # One submission is a hundredth of the time at most.
        if predicted_us(name, CircuitSpec(n, depth, entangle), batch) * batch < 1e4 * seconds
    ]
    timed: dict[str, list[tuple[Load, float]]] = {}
    for name, spec, batch in asked:
        angles = torch.rand(spec.angles_shape(batch), dtype=torch.float64) * 6 - 3

        def submission(name: str = name, spec: CircuitSpec = spec, angles: Tensor = angles) -> None:
            engines[name].submit(spec, angles).result()

        one = load(name, spec, batch)
        timed.setdefault(one.way, []).append((one, 1e6 * _shortest_s(submission, seconds / len(asked)) / batch))
    return Costs(**{way: fitted(timed[way]) if way in timed else cost for way, cost in vars(COSTS).items()})


def _shortest_s(work: Callable[[], None], seconds: float) -> float:
    """The shortest of the runs that `seconds` hold, two at least: the first one warms up."""
    ends = time.perf_counter() + seconds
    work()
    shortest = float("inf")
    while True:
        begins = time.perf_counter()
        work()
        now = time.perf_counter()
        shortest = min(shortest, now - begins)
        if now >= ends:
            return shortest


def fitted(timed: list[tuple[Load, float]]) -> Cost:
    """The costs, none negative, whose predictions come closest to microseconds a circuit, in ratio."""
    from scipy.optimize import nnls

    loads: NDArray[np.float64] = np.array([[one.calls, one.steps, one.work] for one, _ in timed])
    took: NDArray[np.float64] = np.array([us for _, us in timed])
    predicted = took
    for _ in range(30):  # p/t - 1 forgives too little, 1 - t/p too much: with the root of p*t, log(p/t) to third order
        weights = 1 / np.sqrt(took * np.maximum(predicted, 1e-3 * took))
        scale = np.maximum((loads * weights[:, None]).max(0), 1e-300)  # columns of one size, for the solver's sake
        cost = nnls(loads * weights[:, None] / scale, took * weights)[0] / scale
        predicted = loads @ cost
    call_us, step_us, work_us = cost.tolist()
    return Cost(call_us, step_us, work_us)


class _Kind(NamedTuple):
    make: Callable[..., CircuitBackend]
    options: tuple[str, ...]
    required: tuple[str, ...] = ()


_KINDS = {
    "auto": _Kind(AutoBackend, ("shots", "noise", "seed", "threads", "memory_bytes")),
    "torch": _Kind(TorchBackend, ("memory_bytes",)),
    "chain": _Kind(ChainBackend, ("memory_bytes",)),
    "aer": _Kind(AerBackend, ("method", "device", "noise", "shots", "seed", "threads", "memory_bytes")),
    "shots": _Kind(ShotsBackend, ("shots", "seed", "memory_bytes"), ("shots",)),
    "noise": _Kind(NoisyBackend, ("noise", "shots", "seed", "method", "device", "threads", "memory_bytes"), ("noise",)),
    "estimator": _Kind(EstimatorBackend, ("estimator", "precision", "backend", "pass_manager"), ("estimator",)),
}


def make_backend(
    name: str, *, shots: int | None = None, noise: Noise | DeviceNoise | None = None, **options: Any
) -> CircuitBackend:
    """The backend of this name: auto, torch, chain, aer, shots, noise or estimator; options as of its class.

    ValueError in one line: no such name, an option that it does not take, or lacks; what its class refuses.
    CircuitError: qiskit-aer is missing.
    """
    if name not in _KINDS:
        raise ValueError(f"backend: got {name!r}; allowed: {', '.join(_KINDS)}")
    given = options | {key: value for key, value in (("shots", shots), ("noise", noise)) if value is not None}
    kind = _KINDS[name]
    for option in given:
        if option not in kind.options:
            raise ValueError(f"backend {name}: got the option {option!r}; allowed: {', '.join(kind.options)}")
    for option in kind.required:
        if option not in given:
            raise ValueError(f"backend {name}: got no {option}; it needs: {', '.join(kind.required)}")
    return kind.make(**given)
