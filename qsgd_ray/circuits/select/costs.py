"""What each engine's answer costs: a circuit and its batch in, microseconds predicted; timings in, constants out."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.aer.backend import AerBackend
from qsgd_ray.circuits.backends.in_process import ChainBackend, TorchBackend
from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate as statevector


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
# OMP_NUM_THREADS=1 python -c "from qsgd_ray.circuits.select.costs import measure_costs; print(measure_costs())"
# Over 256 other circuits and batches the pick took 3 % more time than the quicker of torch and chain, on average.
COSTS = Costs(
    gates=Cost(140.0, 33.0, 3.7e-4),
    # Again on 2026-11-27, with its sites counted: over 184 circuits and batches of chains and of none the pick took 1.9
    # percent more time than the quicker one, before that 4.9.
    contraction=Cost(150.0, 30.0, 1.0e-3),
    chain=Cost(56.0, 26.0, 1.9e-3),
    aer=Cost(1670.0, 46.0, 3.8e-3),
)


# What making a site of a contraction takes, in its multiplications: sines, gates, and the many small moves between.
SITE = 16


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

    Torch shares a call between the circuits of a chunk that fits the cache, circuits/chain/expectations.py between all
    of a batch; Aer works through them one by one.
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
    shared = min(batch, statevector.circuits_per_chunk(n))
    if statevector.prefers_contraction(spec):
        bond = 2 ** (depth - 1) if spec.entangle == "chain" and n > 1 else 1
        work = 4 * bond * states + 4 * bond**2 * (SITE * n + 4 * 2 ** ((n + 1) // 2))
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
