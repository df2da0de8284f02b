"""Time circuits on Ray actors: against one process, against Ray's own ways, and beside a training.

A private Ray on this machine, so the network is loopback. Engines that answer the same circuits are compared before
they are timed: a wrong one raises an error and gives no row (`qsgd-ray bench pool`).
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.dag import InputNode
from torch import Tensor

from qsgd_ray.bench.rows import Timing, _of_pairs, _timings
from qsgd_ray.bench.timing import _beside, interleaved, one_thread
from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.backends.protocol import Answered, CircuitBackend, Pending, busy_s
from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import Arm, Perturbation, TextTask
from qsgd_ray.config.circuit import Readout
from qsgd_ray.execution.connection import private_ray
from qsgd_ray.optimizer import SuperpositionalAdamW, make_optimizer
from qsgd_ray.pool.backend import PoolBackend
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.pool.router import Member, Router
from qsgd_ray.workloads import make_workload

_PAPER = CircuitSpec(4)
WIDE, WIDE_BATCH = CircuitSpec(10), 512
_WIDE_BUDGETS = 8  # a call takes a quarter of a second: of five rounds the median says little
MANY, TASKS = 4096, 64
_MESSAGE_BYTES = 128 * 1024
TIMEOUT_S, START_S = 60.0, 120.0
_TOLERANCE = 1e-10
_CPUS = 1.0  # of an actor
# Steps are timed in runs of so many: circuits of the next step are under way during a step, so steps do not take turns.
# A run lasts a second: that often the list of actors is read anew, which a shorter run would pay each time.
_STEPS = 100
_STEPS_BUDGETS = 48
_TOKENS = (16, 32)
_ADAMW = "AdamW, fused"


def cases(budget_s: float = 2.0, quick: bool = False) -> Iterator[list[Timing]]:
    """Yield the rows of each case as soon as it ends.

    Args:
        budget_s: seconds that a case's rounds may take; some cases take several.
        quick: fewer circuits.
    """
    with private_ray(n_cpus=3), one_thread():
        yield _over_actors(WIDE_BATCH // 8 if quick else WIDE_BATCH, budget_s)
        yield _against_tasks(MANY // 8 if quick else MANY, TASKS // 8 if quick else TASKS, budget_s)
        yield _one_message(budget_s)
        for n_tokens in _TOKENS[:1] if quick else _TOKENS:
            yield _training_step(n_tokens, budget_s)
        yield _killed_actor(3)


def _over_actors(batch: int, budget_s: float) -> list[Timing]:
    """Time a batch on Aer, in this process and divided between two actors, one thread each: microseconds a circuit."""
    angles = _angles(WIDE, batch)
    alone = make_backend("aer", threads=1)
    with _pool(2, "aer") as pool:
        calls = {
            "one process": lambda: alone.submit(WIDE, angles).result(),
            "two actors": lambda: pool.clear_cache().submit(WIDE, angles).result(),
        }
        notes = _require_agreement(calls, TorchBackend().submit(WIDE, angles).result())
        seconds = interleaved(calls, _WIDE_BUDGETS * budget_s)
    case = f"Aer, {WIDE.n_qubits} qubits, depth {WIDE.depth}, {batch} circuits"
    speed_up = statistics.median(seconds["one process"]) / statistics.median(seconds["two actors"])
    notes["two actors"] = f"{speed_up:.2f} times as quick, {notes['two actors']}"
    return _timings(case, "circuit", seconds, dict.fromkeys(calls, batch), notes)


def _against_tasks(batch: int, n_tasks: int, budget_s: float) -> list[Timing]:
    """Time batches to an actor against a Ray task a circuit: microseconds a circuit."""
    angles = _angles(_PAPER, batch)
    task = ray.remote(num_cpus=0.5)(_one_circuit)

    def by_tasks() -> Tensor:
        return torch.from_numpy(np.stack(ray.get([task.remote(_PAPER, row.numpy()) for row in angles[:n_tasks]])))

    with _pool(1) as pool:
        calls = {
            "pool, one actor": lambda: pool.clear_cache().submit(_PAPER, angles).result(),
            "a Ray task a circuit": by_tasks,
        }
        exact = TorchBackend().submit(_PAPER, angles).result()
        notes = _require_agreement({"pool, one actor": calls["pool, one actor"]}, exact)
        notes |= _require_agreement({"a Ray task a circuit": by_tasks}, exact[:n_tasks])
        seconds = interleaved(calls, budget_s)
    units = {"pool, one actor": batch, "a Ray task a circuit": n_tasks}
    return _timings(
        f"{_PAPER.n_qubits} qubits, depth {_PAPER.depth}, {batch:,} circuits", "circuit", seconds, units, notes
    )


def _one_message(budget_s: float) -> list[Timing]:
    """Time 128 KB of angles to one actor and the answers back: microseconds a call, and the part beyond the simulation.

    The actor's own clock measures the simulation. A compiled graph simulates nothing: it returns the angles.
    """
    batch = _MESSAGE_BYTES // (8 * int(np.prod(_PAPER.angles_shape(1))))
    angles = _angles(_PAPER, batch)
    above: dict[str, list[float]] = {"direct line": [], "Ray's call": []}

    with _pool(1) as pool, _pool(1) as plain:
        by_calls = PoolBackend(_RayCalls.of(plain.router))

        def timed(name: str, asker: PoolBackend) -> Tensor:
            asker.clear_cache()
            began = time.perf_counter()
            pending = asker.submit(_PAPER, angles)
            answer = pending.result()
            above[name].append(time.perf_counter() - began - (busy_s(pending) or 0.0))
            return answer

        echo = ray.remote(num_cpus=0.1)(_Echo).remote()
        with InputNode() as message:
            graph = echo.back.bind(message).experimental_compile()
        array = angles.numpy()
        calls: dict[str, Callable[[], object]] = {
            "simulated here": lambda: TorchBackend().submit(_PAPER, angles).result(),
            "direct line": lambda: timed("direct line", pool),
            "Ray's call": lambda: timed("Ray's call", by_calls),
            "Ray's compiled graph, no simulation": lambda: ray.get(graph.execute(array)).sum(),
        }
        exact = TorchBackend().submit(_PAPER, angles).result()
        _require_agreement({name: calls[name] for name in above}, exact)
        for waits in above.values():
            waits.clear()
        try:
            seconds = interleaved(calls, budget_s, most_rounds=200)
        finally:
            graph.teardown()
            ray.kill(echo)
    notes = {
        name: f"above the simulation {1e3 * statistics.median(waits):.2f} ms at p50, {1e3 * _p99(waits):.2f} at p99"
        for name, waits in above.items()
    }
    return _timings(
        f"{_MESSAGE_BYTES // 1024} KB of angles, {batch:,} circuits", "call", seconds, dict.fromkeys(calls, 1), notes
    )


def _training_step(n_tokens: int, budget_s: float) -> list[Timing]:
    """Time steps of the text task on one thread, its circuits on Aer in one actor: microseconds a step.

    With four classes every tensor has a circuit of four qubits. `collected at once` waits for its circuits in each
    step, without the prefetch. Steps are timed in runs, with a run of AdamW after each, and a second AdamW shows how
    far two equal optimizers come out apart. The notes give the ratio of each run to the two of AdamW around it.
    """
    task = TextTask(n_classes=4, length=n_tokens)
    workload = make_workload(task, device="cpu")
    batches = list(workload.batches(1, 1, 0, 1))
    adamw, sine = Arm(name="adamw"), Arm(name="sine", perturbation=Perturbation(source="sine"))
    circuit = Arm(name="circuit", perturbation=Perturbation(source="circuit"))
    n_steps: Counter[str] = Counter()

    def steps(name: str, optimizer: Any, model: Any) -> None:
        n_steps[name] += _STEPS
        for number in range(_STEPS):
            optimizer.zero_grad()
            workload.backward(model, batches[number % len(batches)], world_size=1)
            optimizer.step()

    with _pool(1, "aer") as aer, _pool(1) as auto, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2511)
        arms: dict[str, tuple[Arm, CircuitBackend | None]] = {
            _ADAMW: (adamw, None),
            f"{_ADAMW}, again": (adamw, None),
            "sine": (sine, None),
            "Aer in the pool": (circuit, aer),
            "Aer in the pool, collected at once": (circuit, _WithoutPrefetch(aer)),
            "torch in the pool": (circuit, auto),
            "torch in this process": (circuit, None),
        }
        calls, optimizers = {}, {}
        for name, (arm, backend) in arms.items():
            model = workload.make_model(1)
            optimizers[name] = make_optimizer(arm, model.parameters(), backend, 1)
            calls[name] = partial(steps, name, optimizers[name], model)
            calls[name]()  # the first steps make moments and connections
        before = {name: _circuit_times(optimizer) for name, optimizer in optimizers.items()}
        n_steps.clear()
        seconds, around = _beside(calls, _ADAMW, _STEPS_BUDGETS * budget_s, most_rounds=60)
    notes = {name: _of_pairs(seconds[name], around[name], "runs") for name in around}
    for name, optimizer in optimizers.items():
        n_circuits, simulated_s, waited_s = (_circuit_times(optimizer) - before[name]) / n_steps[name]
        if n_circuits:
            notes[name] += (
                f"; {n_circuits:.0f} circuits, simulated in {1e6 * simulated_s:,.0f} µs, asked and waited for in "
                f"{1e6 * waited_s:,.0f} µs"
            )
    case = f"step of the text task, {n_tokens} tokens, batch {task.batch_size}, one thread and one simulating core"
    return _timings(case, "step", seconds, dict.fromkeys(calls, _STEPS), notes)


def _circuit_times(optimizer: Any) -> NDArray[np.float64]:
    """Return the circuits so far, the seconds of their simulation, and those of submitting and waiting."""
    if not isinstance(optimizer, SuperpositionalAdamW):
        return np.zeros(3)
    totals = optimizer.telemetry()
    return np.array([totals.n_circuits, totals.circuit_s, totals.circuit_wait_s], dtype=np.float64)


def _killed_actor(rounds: int) -> list[Timing]:
    """Time an answer from two actors, and one during which an actor is killed: microseconds a call."""
    angles = _angles(_PAPER, 1024)
    seconds: dict[str, list[float]] = {"undisturbed": [], "one of two actors killed": []}
    for name, rounds_s in seconds.items():
        for _ in range(rounds):
            with _pool(2) as pool:
                for seed in range(4):  # lines to both
                    pool.submit(_PAPER, _angles(_PAPER, 2, seed)).result()
                began = time.perf_counter()
                pending = [pool.submit(_PAPER, angles), pool.submit(_PAPER, -angles)]
                if name != "undisturbed":
                    ray.kill(pool.router.membership.members()[0], no_restart=False)
                for own in pending:
                    own.result()
                rounds_s.append(time.perf_counter() - began)
    return _timings("two batches of 1,024 circuits, 4 qubits", "call", seconds, dict.fromkeys(seconds, 1), {})


class _WithoutPrefetch:
    """Backend that waits for each answer where it is asked: no prefetch."""

    def __init__(self, inner: CircuitBackend) -> None:
        self._inner = inner

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        pending = self._inner.submit(spec, angles_bdnr, readout, keys_b)
        return Answered(pending.result(), getattr(pending, "busy_s", None))


class _RayCalls(Router):
    """Router that reaches actors by Ray calls alone."""

    @classmethod
    def of(cls, router: Router) -> _RayCalls:
        return cls(router.membership, router.timeout_s, router.secret)

    def connection(self, _: Member) -> None:
        return None


class _Echo:
    """Actor that returns its argument."""

    def back(self, array: Any) -> Any:
        return array


def _one_circuit(spec: CircuitSpec, angles_dnr: Any) -> Any:
    return TorchBackend().submit(spec, torch.from_numpy(angles_dnr.copy())[None]).result().numpy()[0]


@contextmanager
def _pool(n_actors: int, engine: str = "auto") -> Iterator[PoolBackend]:
    pool = CircuitPool(n_actors, _CPUS, TIMEOUT_S, engine)
    try:
        pool.wait_until_ready(START_S)
        yield pool.backend()
    finally:
        pool.close()


def _angles(spec: CircuitSpec, batch: int, seed: int = 2511) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64)


def _require_agreement(calls: dict[str, Callable[[], Any]], exact: Tensor) -> dict[str, str]:
    """Return the largest error of each call as a note; AssertionError where rounding does not explain it."""
    notes = {}
    for name, call in calls.items():
        error = float((call() - exact).abs().max())
        if not error < _TOLERANCE:
            raise AssertionError(f"{name} differs from the exact answers by {error:.1e}; allowed: {_TOLERANCE:.0e}")
        notes[name] = f"error {error:.1e}" if error else "error 0"
    return notes


def _p99(values: list[float]) -> float:
    return float(np.percentile(values, 99))
