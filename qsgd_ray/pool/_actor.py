"""One simulating process of the pool: circuits in, answers out, by Ray's calls or by the door. A thin shell."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from qsgd_ray.circuits.backends.protocol import CircuitBackend, Sampling, SamplingBackend
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.memory import total_bytes
from qsgd_ray.circuits.select.auto import AutoBackend, make_backend
from qsgd_ray.pool._load import Load, Presence
from qsgd_ray.pool._metrics import PoolMetrics
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._transport import Address, AtWork, Door


class CircuitActor:
    """An `AutoBackend`, or another engine by name, that answers over the network."""

    def __init__(self, threads: int, engine: str, secret: bytes) -> None:
        torch.set_num_threads(threads)
        self._backends: dict[Sampling | None, CircuitBackend] = {None: self._make(threads, engine)}
        self._born = time.monotonic()
        self._began: float | None = None
        self._busy_s = 0.0
        self._turn = threading.Lock()  # one batch at a time, whichever way it came
        self._presence = Presence()
        self._secret = secret
        self._door: Door | None = None

    def _make(self, threads: int, engine: str) -> CircuitBackend:
        memory = total_bytes()
        if engine == "auto":
            return AutoBackend(memory_bytes=memory, threads=threads)
        options: dict[str, Any] = {"threads": threads} if engine == "aer" else {}
        return make_backend(engine, memory_bytes=memory, **options)

    def answer(self, asked: CircuitRequest) -> tuple[NDArray[np.float64], float]:
        """(batch, spec.answer_width(readout)), and the seconds that took. CircuitError: refused; `CircuitMemoryError`
        where this node can hold none of it (who asked hears of it as CircuitError)."""
        arrived = time.monotonic()
        with self._presence, self._turn:
            self._began = began = time.monotonic()
            try:
                values = self._answer(asked)
            finally:
                busy_s = time.monotonic() - began
                self._began = None
                self._busy_s += busy_s
            PoolMetrics.here().simulated(len(values), began - arrived, self._busy_s / (time.monotonic() - self._born))
            return values, busy_s

    def _answer(self, asked: CircuitRequest) -> NDArray[np.float64]:
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

    @ray.method(concurrency_group="health")
    def at_work(self) -> AtWork:
        """For how long, and where."""
        began, door = self._began, None if self._door is None else self._door.address
        if began is None:
            return AtWork(0.0 if self._presence.count else None, door)
        return AtWork(time.monotonic() - began, door)

    @ray.method(concurrency_group="health")
    def load(self) -> Load:
        """How much has been asked of it so far."""
        return self._presence.read()
