"""Circuits on Ray actors, behind the same protocol as circuits at home: angles in, expectation values out.

The actor is a thin shell over a `CircuitBackend`. A pool is started once a study, before its first trial and outside of
every trial's placement group, so that no trial can starve what it waits for; what travels to the training workers is
the pool's `PoolBackend`.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

import numpy as np
import psutil
import ray
import torch
from numpy.typing import NDArray

from qsgd_ray.asked import Asked
from qsgd_ray.circuits.auto import AutoBackend, make_backend
from qsgd_ray.circuits.backends import CircuitBackend, Sampling, SamplingBackend
from qsgd_ray.circuits.errors import CircuitError, CircuitsLost
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.door import Address, Door
from qsgd_ray.pool_backend import PoolBackend
from qsgd_ray.pool_metrics import PoolMetrics

__all__ = ["CircuitActor", "CircuitPool", "PoolBackend"]


class CircuitActor:
    """One simulating process: an `AutoBackend`, or another engine by name, that answers over the network."""

    def __init__(self, threads: int, engine: str = "auto", secret: bytes = b"") -> None:
        torch.set_num_threads(threads)
        self._backends: dict[Sampling | None, CircuitBackend] = {None: self._make(threads, engine)}
        self._born = time.monotonic()
        self._began: float | None = None
        self._busy_s = 0.0
        self._turn = threading.Lock()  # one batch at a time, whichever way it came
        self._secret = secret
        self._door: Door | None = None

    def _make(self, threads: int, engine: str) -> CircuitBackend:
        memory = psutil.virtual_memory().total
        if engine == "auto":
            return AutoBackend(memory_bytes=memory, threads=threads)
        options: dict[str, Any] = {"threads": threads} if engine == "aer" else {}
        return make_backend(engine, memory_bytes=memory, **options)

    def answer(self, asked: Asked) -> tuple[NDArray[np.float64], float]:
        """(batch, spec.answer_width(readout)), and the seconds that took; `CircuitMemoryError` where this node can hold
        none of it."""
        with self._turn:
            self._began = time.monotonic()
            try:
                values = self._answer(asked)
            finally:
                busy_s = time.monotonic() - self._began
                self._began = None
                self._busy_s += busy_s
            PoolMetrics.here().simulated(len(values), self._busy_s / (time.monotonic() - self._born))
            return values, busy_s

    def _answer(self, asked: Asked) -> NDArray[np.float64]:
        backend = self._backends.get(asked.sampling)
        if backend is None:
            exact = self._backends[None]
            if not isinstance(exact, SamplingBackend) or asked.sampling is None:
                raise CircuitError(f"circuits: got {type(exact).__name__}, which does not sample")
            backend = self._backends[asked.sampling] = exact.sampled(asked.sampling)
        # Ray hands out read-only arrays; torch wants to own what it wraps.
        angles = torch.from_numpy(asked.angles_bdnr.copy())
        keys = None if asked.keys_b is None else torch.from_numpy(asked.keys_b.copy())
        if isinstance(backend, AutoBackend):
            pending = backend.submit_part(asked.spec, angles, asked.readout, keys, asked.of)
        else:
            pending = backend.submit(asked.spec, angles, asked.readout, keys)
        values: NDArray[np.float64] = pending.result().numpy()
        return values

    @ray.method(concurrency_group="health")
    def door(self) -> Address:
        """Where a direct line begins; whoever uses it shows the pool's secret."""
        if self._door is None:
            self._door = Door(self.answer, self._secret, ray.util.get_node_ip_address())
        return self._door.address

    @ray.method(concurrency_group="health", max_task_retries=-1)
    def running_s(self) -> float:
        """For how many seconds the call under way has been; 0 where there is none. Waits for an actor that restarts."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began


class CircuitPool:
    """`n_actors` circuit actors, alive as long as this object's owner keeps it. `engine`: as of `make_backend`."""

    def __init__(
        self,
        n_actors: int,
        cpus_per_actor: float,
        timeout_s: float,
        engine: str = "auto",
        actor: type[CircuitActor] = CircuitActor,
    ) -> None:
        # A call that dies with its actor is asked again by whoever wants the answer (pool_backend.py): repeated by Ray,
        # one that hangs would hang the restarted actor for nobody.
        shell = ray.remote(
            num_cpus=cpus_per_actor, max_restarts=-1, max_task_retries=0, concurrency_groups={"health": 1}
        )(actor)
        self._secret = secrets.token_bytes(32)
        threads = max(1, int(cpus_per_actor))
        self._actors = [shell.remote(threads, engine, self._secret) for _ in range(n_actors)]
        self._timeout_s = timeout_s

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return when every actor answers; `CircuitsLost` where the cluster did not start them in time."""
        one_qubit = Asked(CircuitSpec(1, depth=1), np.zeros((1, 1, 1, 2)), "z", None, None, 1)
        calls = [actor.answer.remote(one_qubit) for actor in self._actors]
        ready, waiting = ray.wait(calls, num_returns=len(calls), timeout=timeout_s)
        if waiting:
            raise CircuitsLost(
                f"{len(waiting)} of {len(calls)} circuit actors did not start within {timeout_s:g} s: "
                "does the cluster have the CPUs that resources.cpus_per_circuit_actor asks for?"
            )
        ray.get(ready)

    def backend(self) -> PoolBackend:
        """What a training worker gets."""
        return PoolBackend(self._actors, self._timeout_s, self._secret)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
