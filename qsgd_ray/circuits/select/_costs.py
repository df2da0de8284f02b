"""The cost model: microseconds that each engine is predicted to take, and the fit of its constants to timings."""

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
from qsgd_ray.circuits.select.work import EngineWork, engine_work
from qsgd_ray.circuits.spec import CircuitSpec


class Cost(NamedTuple):
    """Microseconds that one method takes for a call, for a step, and for a multiplication (see `EngineWork`)."""

    call_us: float
    step_us: float
    multiplication_us: float

    def predict_us(self, work: EngineWork) -> float:
        """Return the microseconds that this work takes."""
        return work.calls * self.call_us + work.steps * self.step_us + work.multiplications * self.multiplication_us


@dataclass(frozen=True)
class Costs:
    """The cost of every method."""

    statevector: Cost
    chain: Cost
    aer: Cost


# One core of an Intel Xeon with AVX-512, torch 2.13, Aer 0.18.2, 2026-12-01, beside other work:
# OMP_NUM_THREADS=1 python -c "from qsgd_ray.circuits.select._costs import measure_costs; print(measure_costs(60))"
COSTS = Costs(
    statevector=Cost(24.0, 0.029, 7.4e-5),
    chain=Cost(46.0, 0.017, 7.9e-5),
    aer=Cost(370.0, 43.0, 3.4e-3),
)


def predicted_us(name: str, spec: CircuitSpec, batch: int, costs: Costs = COSTS) -> float:
    """Return the microseconds that one circuit of a batch takes on torch, chain or aer."""
    work = engine_work(name, spec, batch)
    cost: Cost = getattr(costs, work.method)
    return cost.predict_us(work)


def measure_costs(seconds: float = 20.0) -> Costs:
    """Return the costs of this machine, fitted to submissions that are timed in this process for about `seconds`.

    A method that is not measured, such as Aer where it is not installed, keeps its cost of `COSTS`.
    """
    engines: dict[str, CircuitBackend] = {"torch": TorchBackend(), "chain": ChainBackend()}
    if importlib.util.find_spec("qiskit_aer"):
        engines["aer"] = AerBackend("statevector", threads=torch.get_num_threads())
    cases = [
        (name, CircuitSpec(n, depth, entangle), batch)
        for n, depth in ((2, 1), (4, 2), (4, 3), (8, 1), (8, 2), (8, 4), (12, 2), (14, 1), (14, 3))
        for entangle in ("chain", "ring", "all", "none")
        for batch in (1, 16, 256)
        for name in engines
        # One submission is a hundredth of the time at most.
        if predicted_us(name, CircuitSpec(n, depth, entangle), batch) * batch < 1e4 * seconds
    ]
    timed: dict[str, list[tuple[EngineWork, float]]] = {}
    for name, spec, batch in cases:
        angles = torch.rand(spec.angles_shape(batch), dtype=torch.float64) * 6 - 3

        def submission(name: str = name, spec: CircuitSpec = spec, angles: Tensor = angles) -> None:
            engines[name].submit(spec, angles).result()

        work = engine_work(name, spec, batch)
        circuit_us = 1e6 * _shortest_s(submission, seconds / len(cases)) / batch
        timed.setdefault(work.method, []).append((work, circuit_us))
    return Costs(
        **{method: fit_cost(timed[method]) if method in timed else cost for method, cost in vars(COSTS).items()}
    )


def _shortest_s(work: Callable[[], None], seconds: float) -> float:
    """Run `work` for about `seconds`, twice at least since the first run warms up; return the shortest time."""
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


def fit_cost(timed: list[tuple[EngineWork, float]]) -> Cost:
    """Fit a cost to work and its microseconds a circuit: least squares of the ratios, no constant negative.

    The residual (p - t) / sqrt(p * t) of predicted p and timed t is log(p / t) up to third order. By itself, p/t - 1
    forgives predictions that are too small, 1 - t/p those that are too large. The weights follow from the fit before.
    """
    from scipy.optimize import nnls

    works: NDArray[np.float64] = np.array([[work.calls, work.steps, work.multiplications] for work, _ in timed])
    timed_us: NDArray[np.float64] = np.array([us for _, us in timed])
    predicted = timed_us
    for _ in range(30):
        weights = 1 / np.sqrt(timed_us * np.maximum(predicted, 1e-3 * timed_us))
        scale = np.maximum((works * weights[:, None]).max(0), 1e-300)  # columns of one size, for the solver's sake
        cost = nnls(works * weights[:, None] / scale, timed_us * weights)[0] / scale
        predicted = works @ cost
    call_us, step_us, multiplication_us = cost.tolist()
    return Cost(call_us, step_us, multiplication_us)
