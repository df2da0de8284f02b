"""`qsgd-ray bench pool`: circuits on Ray actors against one process, against Ray's own ways, and beside a training.

Nothing in, rows out (rows.py). A private Ray on this machine, so the network is loopback. Engines that answer the same
circuits are compared before they are timed: a wrong one is an error, not a row.
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

from qsgd_ray.bench.rows import Timing, of_pairs, timings
from qsgd_ray.bench.timing import beside, interleaved, one_thread
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

PAPER = CircuitSpec(4)
WIDE, WIDE_BATCH = CircuitSpec(10), 512
WIDE_BUDGETS = 8  # a call takes a quarter of a second: of five rounds the median says little
MANY, TASKS = 4096, 64
MESSAGE_BYTES = 128 * 1024
TIMEOUT_S, START_S = 60.0, 120.0
TOLERANCE = 1e-10
CPUS = 1.0  # of an actor
# Steps are timed in runs of so many: circuits of the next step are under way during a step, so steps do not take turns.
# A run lasts a second: that often the list of actors is read anew, which a shorter run would pay each time.
STEPS = 100
STEPS_BUDGETS = 48
TOKENS = (16, 32)
ADAMW = "AdamW, fused"


def run(budget_s: float = 2.0, quick: bool = False) -> Iterator[Timing]:
    """The rows of all cases, one after the other; `quick`: fewer circuits."""
    for rows in cases(budget_s, quick):
        yield from rows


def cases(budget_s: float = 2.0, quick: bool = False) -> Iterator[list[Timing]]:
    """As `run`, the rows of a case together, as soon as it ends."""
    with private_ray(n_cpus=3), one_thread():
        yield over_actors(WIDE_BATCH // 8 if quick else WIDE_BATCH, budget_s)
        yield against_tasks(MANY // 8 if quick else MANY, TASKS // 8 if quick else TASKS, budget_s)
        yield one_message(budget_s)
        for n_tokens in TOKENS[:1] if quick else TOKENS:
            yield training_step(n_tokens, budget_s)
        yield killed_actor(3)


def over_actors(batch: int, budget_s: float) -> list[Timing]:
    """A batch on Aer, in this process and cut over two actors, one thread each: microseconds a circuit."""
    angles = _angles(WIDE, batch)
    alone = make_backend("aer", threads=1)
    with _pool(2, "aer") as pool:
        calls = {
            "one process": lambda: alone.submit(WIDE, angles).result(),
            "two actors": lambda: pool.clear_cache().submit(WIDE, angles).result(),
        }
        notes = _agree(calls, TorchBackend().submit(WIDE, angles).result())
        seconds = interleaved(calls, WIDE_BUDGETS * budget_s)
    case = f"Aer, {WIDE.n_qubits} qubits, depth {WIDE.depth}, {batch} circuits"
    speed_up = statistics.median(seconds["one process"]) / statistics.median(seconds["two actors"])
    notes["two actors"] = f"{speed_up:.2f} times as quick, {notes['two actors']}"
    return timings(case, "circuit", seconds, dict.fromkeys(calls, batch), notes)


def against_tasks(batch: int, n_tasks: int, budget_s: float) -> list[Timing]:
    """Batches to an actor, and a Ray task a circuit: microseconds a circuit."""
    angles = _angles(PAPER, batch)
    task = ray.remote(num_cpus=0.5)(_one_circuit)

    def by_tasks() -> Tensor:
        return torch.from_numpy(np.stack(ray.get([task.remote(PAPER, row.numpy()) for row in angles[:n_tasks]])))

    with _pool(1) as pool:
        calls = {
            "pool, one actor": lambda: pool.clear_cache().submit(PAPER, angles).result(),
            "a Ray task a circuit": by_tasks,
        }
        exact = TorchBackend().submit(PAPER, angles).result()
        notes = _agree({"pool, one actor": calls["pool, one actor"]}, exact)
        notes |= _agree({"a Ray task a circuit": by_tasks}, exact[:n_tasks])
        seconds = interleaved(calls, budget_s)
    units = {"pool, one actor": batch, "a Ray task a circuit": n_tasks}
    return timings(
        f"{PAPER.n_qubits} qubits, depth {PAPER.depth}, {batch:,} circuits", "circuit", seconds, units, notes
    )


def one_message(budget_s: float) -> list[Timing]:
    """128 KB of angles to one actor and the answers back: microseconds a call, and how much of it is no simulation.

    The actor's own clock says how long it simulated. A compiled graph simulates nothing: it hands the angles back.
    """
    batch = MESSAGE_BYTES // (8 * int(np.prod(PAPER.angles_shape(1))))
    angles = _angles(PAPER, batch)
    above: dict[str, list[float]] = {"direct line": [], "Ray's call": []}

    with _pool(1) as pool, _pool(1) as plain:
        by_calls = PoolBackend(_RaysCalls.of(plain.router))

        def timed(name: str, asker: PoolBackend) -> Tensor:
            asker.clear_cache()
            began = time.perf_counter()
            pending = asker.submit(PAPER, angles)
            answer = pending.result()
            above[name].append(time.perf_counter() - began - (busy_s(pending) or 0.0))
            return answer

        echo = ray.remote(num_cpus=0.1)(_Echo).remote()
        with InputNode() as asked:
            graph = echo.back.bind(asked).experimental_compile()
        array = angles.numpy()
        calls: dict[str, Callable[[], object]] = {
            "simulated here": lambda: TorchBackend().submit(PAPER, angles).result(),
            "direct line": lambda: timed("direct line", pool),
            "Ray's call": lambda: timed("Ray's call", by_calls),
            "Ray's compiled graph, no simulation": lambda: ray.get(graph.execute(array)).sum(),
        }
        exact = TorchBackend().submit(PAPER, angles).result()
        _agree({name: calls[name] for name in above}, exact)
        for found in above.values():
            found.clear()
        try:
            seconds = interleaved(calls, budget_s, most_rounds=200)
        finally:
            graph.teardown()
            ray.kill(echo)
    notes = {
        name: f"above the simulation {1e3 * statistics.median(found):.2f} ms at p50, {1e3 * _p99(found):.2f} at p99"
        for name, found in above.items()
    }
    return timings(
        f"{MESSAGE_BYTES // 1024} KB of angles, {batch:,} circuits", "call", seconds, dict.fromkeys(calls, 1), notes
    )


def training_step(n_tokens: int, budget_s: float) -> list[Timing]:
    """Steps of the text task on one thread, its circuits on Aer in one actor: microseconds a step.

    With four classes every tensor has a circuit of four qubits. `collected at once`: without the prefetch, each step
    waits for its circuits. In runs of steps, AdamW's after each other's, and AdamW beside itself too: how far do two of
    the same come out apart? Told is the ratio of each run to the two of AdamW around it.
    """
    task = TextTask(n_classes=4, length=n_tokens)
    workload = make_workload(task, device="cpu")
    batches = list(workload.batches(1, 1, 0, 1))
    adamw, sine = Arm(name="adamw"), Arm(name="sine", perturbation=Perturbation(source="sine"))
    circuit = Arm(name="circuit", perturbation=Perturbation(source="circuit"))
    n_steps: Counter[str] = Counter()

    def steps(name: str, optimizer: Any, model: Any) -> None:
        n_steps[name] += STEPS
        for number in range(STEPS):
            optimizer.zero_grad()
            workload.backward(model, batches[number % len(batches)], world_size=1)
            optimizer.step()

    with _pool(1, "aer") as aer, _pool(1) as auto, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2511)
        arms: dict[str, tuple[Arm, CircuitBackend | None]] = {
            ADAMW: (adamw, None),
            f"{ADAMW}, again": (adamw, None),
            "sine": (sine, None),
            "Aer in the pool": (circuit, aer),
            "Aer in the pool, collected at once": (circuit, AtOnce(aer)),
            "torch in the pool": (circuit, auto),
            "torch in this process": (circuit, None),
        }
        calls, optimizers = {}, {}
        for name, (arm, backend) in arms.items():
            model = workload.make_model(1)
            optimizers[name] = make_optimizer(arm, model.parameters(), backend, 1)
            calls[name] = partial(steps, name, optimizers[name], model)
            calls[name]()  # the first steps make moments and connections
        before = {name: _told(optimizer) for name, optimizer in optimizers.items()}
        n_steps.clear()
        seconds, around = beside(calls, ADAMW, STEPS_BUDGETS * budget_s, most_rounds=60)
    notes = {name: of_pairs(seconds[name], around[name], "runs") for name in around}
    for name, optimizer in optimizers.items():
        n_circuits, simulated_s, waited_s = (_told(optimizer) - before[name]) / n_steps[name]
        if n_circuits:
            notes[name] += (
                f"; {n_circuits:.0f} circuits, simulated in {1e6 * simulated_s:,.0f} µs, asked and waited for in "
                f"{1e6 * waited_s:,.0f} µs"
            )
    case = f"step of the text task, {n_tokens} tokens, batch {task.batch_size}, one thread and one simulating core"
    return timings(case, "step", seconds, dict.fromkeys(calls, STEPS), notes)


def _told(optimizer: Any) -> NDArray[np.float64]:
    """Circuits so far, seconds of simulation, and of asking and waiting."""
    if not isinstance(optimizer, SuperpositionalAdamW):
        return np.zeros(3)
    told = optimizer.telemetry()
    return np.array([told.n_circuits, told.circuit_s, told.circuit_wait_s], dtype=np.float64)


def killed_actor(rounds: int) -> list[Timing]:
    """An answer from two actors, and one for which an actor is killed as it is asked: microseconds a call."""
    angles = _angles(PAPER, 1024)
    seconds: dict[str, list[float]] = {"undisturbed": [], "one of two actors killed": []}
    for name, found in seconds.items():
        for _ in range(rounds):
            with _pool(2) as pool:
                for seed in range(4):  # lines to both
                    pool.submit(PAPER, _angles(PAPER, 2, seed)).result()
                began = time.perf_counter()
                pending = [pool.submit(PAPER, angles), pool.submit(PAPER, -angles)]
                if name != "undisturbed":
                    ray.kill(pool.router.membership.members()[0], no_restart=False)
                for own in pending:
                    own.result()
                found.append(time.perf_counter() - began)
    return timings("two batches of 1,024 circuits, 4 qubits", "call", seconds, dict.fromkeys(seconds, 1), {})


class AtOnce:
    """A backend whose answers are waited for as they are asked: no prefetch."""

    def __init__(self, inner: CircuitBackend) -> None:
        self._inner = inner

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        pending = self._inner.submit(spec, angles_bdnr, readout, keys_b)
        return Answered(pending.result(), getattr(pending, "busy_s", None))


class _RaysCalls(Router):
    """Reaches actors by Ray's calls alone."""

    @classmethod
    def of(cls, router: Router) -> _RaysCalls:
        return cls(router.membership, router.timeout_s, router.secret)

    def connection(self, _: Member) -> None:
        return None


class _Echo:
    """Hands back what it is sent."""

    def back(self, array: Any) -> Any:
        return array


def _one_circuit(spec: CircuitSpec, angles_dnr: Any) -> Any:
    return TorchBackend().submit(spec, torch.from_numpy(angles_dnr.copy())[None]).result().numpy()[0]


@contextmanager
def _pool(n_actors: int, engine: str = "auto") -> Iterator[PoolBackend]:
    pool = CircuitPool(n_actors, CPUS, TIMEOUT_S, engine)
    try:
        pool.wait_until_ready(START_S)
        yield pool.backend()
    finally:
        pool.close()


def _angles(spec: CircuitSpec, batch: int, seed: int = 2511) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spec.angles_shape(batch), generator=generator, dtype=torch.float64)


def _agree(calls: dict[str, Callable[[], Any]], exact: Tensor) -> dict[str, str]:
    """The largest error of each as a note; AssertionError where it is none of rounding."""
    notes = {}
    for name, call in calls.items():
        error = float((call() - exact).abs().max())
        if not error < TOLERANCE:
            raise AssertionError(f"{name} differs from the exact answers by {error:.1e}; allowed: {TOLERANCE:.0e}")
        notes[name] = f"error {error:.1e}" if error else "error 0"
    return notes


def _p99(values: list[float]) -> float:
    return float(np.percentile(values, 99))
