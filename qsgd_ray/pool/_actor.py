"""One simulating process of the pool: answers requests by Ray's calls and over TCP. A thin shell around a backend."""

from __future__ import annotations

import threading
import time
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from qsgd_ray.circuits.backends.protocol import CircuitBackend, Sampling, SamplingBackend
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.memory import total_bytes
from qsgd_ray.circuits.select.auto import AutoBackend, make_backend
from qsgd_ray.pool._load import Load, RequestMeter
from qsgd_ray.pool._metrics import pool_metrics
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool._server import CircuitServer
from qsgd_ray.pool._transport import Address, Answer


class ActorStatus(NamedTuple):
    """An actor's own account of what it is doing.

    Attributes:
        call_s: seconds that the call under way has taken so far; None where there is no request at all.
        address: address of its server; None where nobody has asked for it.
    """

    call_s: float | None
    address: Address | None


class CircuitActor:
    """A backend behind Ray's calls and a TCP server.

    `engine`: as `make_backend` takes it. `threads`: of torch and of Aer. `secret`: what clients must send first.
    """

    def __init__(self, threads: int, engine: str, secret: bytes) -> None:
        torch.set_num_threads(threads)
        self._backends: dict[Sampling | None, CircuitBackend] = {None: _make_engine(engine, threads)}
        self._started_at = time.monotonic()
        self._call_began: float | None = None
        self._busy_s = 0.0
        self._lock = threading.Lock()  # one batch at a time, by Ray's call or over TCP
        self._meter = RequestMeter()
        self._secret = secret
        self._server: CircuitServer | None = None

    def answer(self, request: CircuitRequest) -> Answer:
        """Return float64 values of shape (circuits, spec.answer_width(readout)), and the seconds of simulation.

        CircuitError: the engine refused. CircuitMemoryError: one circuit does not fit on this node (the caller sees it
        as a CircuitError).
        """
        arrived = time.monotonic()
        with self._meter, self._lock:
            self._call_began = began = time.monotonic()
            try:
                values = self._simulate(request)
            finally:
                busy_s = time.monotonic() - began
                self._call_began = None
                self._busy_s += busy_s
            busy_share = self._busy_s / (time.monotonic() - self._started_at)
            pool_metrics().count_answer(len(values), began - arrived, busy_share)
            return values, busy_s

    def _simulate(self, request: CircuitRequest) -> NDArray[np.float64]:
        backend = self._backend(request.sampling)
        # Ray hands out read-only arrays; torch wants to own what it wraps.
        angles = torch.from_numpy(request.angles_bdnr.copy())
        keys = None if request.keys_b is None else torch.from_numpy(request.keys_b.copy())
        if isinstance(backend, AutoBackend):
            pending = backend.submit(request.spec, angles, request.readout, keys, batch_size=request.batch_size)
        else:
            pending = backend.submit(request.spec, angles, request.readout, keys)
        values: NDArray[np.float64] = pending.result().numpy()
        return values

    def _backend(self, sampling: Sampling | None) -> CircuitBackend:
        if sampling not in self._backends:
            exact = self._backends[None]
            if not isinstance(exact, SamplingBackend) or sampling is None:
                raise CircuitError(f"circuits: got {type(exact).__name__}, which does not sample")
            self._backends[sampling] = exact.sampled(sampling)
        return self._backends[sampling]

    @ray.method(concurrency_group="health")
    def address(self) -> Address:
        """Return the address of the TCP server, which the first call starts."""
        if self._server is None:
            self._server = CircuitServer(self.answer, self._secret, ray.util.get_node_ip_address())
        return self._server.address

    @ray.method(concurrency_group="health")
    def status(self) -> ActorStatus:
        """Return how long the call under way has taken, and the server's address."""
        began, address = self._call_began, None if self._server is None else self._server.address
        if began is None:
            return ActorStatus(0.0 if self._meter.count else None, address)
        return ActorStatus(time.monotonic() - began, address)

    @ray.method(concurrency_group="health")
    def load(self) -> Load:
        """Return the reading of the actor's meter of requests."""
        return self._meter.read()


def _make_engine(engine: str, threads: int) -> CircuitBackend:
    memory = total_bytes()
    if engine == "auto":
        return AutoBackend(memory_bytes=memory, threads=threads)
    options: dict[str, Any] = {"threads": threads} if engine == "aer" else {}
    return make_backend(engine, memory_bytes=memory, **options)
