"""The circuit pool as a training worker uses it: a `CircuitBackend` that cuts batches over the pool's actors.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import Answered, Pending, Sampling
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout
from qsgd_ray.pool._cache import AnswerCache
from qsgd_ray.pool._metrics import pool_metrics
from qsgd_ray.pool._pending import PendingPart, longest_wait_s
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool.router import Router

# Work that is worth a call of its own, in seconds: a call takes a millisecond or two there and back.
_PART_S = 2e-3
# Largest share of the timeout that one part may take, so that a long batch is not taken to hang.
_PART_OF_TIMEOUT = 0.1
# Weight of the newest measurement in the running mean of seconds a circuit.
_NEWEST = 0.2


@dataclass
class PoolBackend:
    """A `CircuitBackend` on the pool's actors. It can be sent to other processes, and samples if it is told to.

    A batch is cut into parts by the time that its circuits took so far; the first batch of a kind, by the time that the
    cost model predicts. Exact answers are cached, up to 64 MiB of them in a process.

    Attributes:
        router: the way to the actors.
        sampling: shots and noise; None: exact answers.

    Example:
        >>> pool = CircuitPool(n_actors=2, cpus_per_actor=1, timeout_s=60)  # doctest: +SKIP
        >>> spec = CircuitSpec(4, depth=2)  # doctest: +SKIP
        >>> pool.backend().submit(spec, torch.zeros(10, 2, 4, 2)).result().shape  # doctest: +SKIP
        torch.Size([10, 4])
    """

    router: Router
    sampling: Sampling | None = None
    _circuit_s: dict[bytes, float] = field(default_factory=dict)  # measured seconds a circuit, by the request's kind
    _cache: AnswerCache = field(default_factory=AnswerCache)

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        """Send circuits to the actors whose turn it is. It returns at once unless too many requests are under way.

        Args:
            spec: the circuit.
            angles_bdnr: any real dtype and device, shape (b, d, n, r); radians.
            readout: "z" or "probability", as of `CircuitBackend.submit`.
            keys_b: int64, shape (b,): names of the circuits' draws; None: each actor counts its own.

        Returns:
            The pending answer; its `busy_s` is the actors' time together, in seconds.

        Raises:
            CircuitError: angles of another shape, or no real floats.
        """
        try:
            spec.check_angles(angles_bdnr)
        except ValueError as error:
            raise CircuitError(str(error)) from None
        # Copies of our own: the cache keeps them, and they are sent again where an actor is lost.
        angles = np.array(angles_bdnr.to(torch.float64).numpy(force=True), order="C")
        keys = None if keys_b is None else np.array(keys_b.cpu().numpy(), dtype=np.int64)
        request = CircuitRequest(spec, angles, readout, keys, self.sampling, len(angles))
        cached = None if self.sampling is not None else self._cache.get(request)
        pool_metrics().count_batch(len(angles), cached=cached is not None)
        if cached is not None:
            return Answered(cached, busy_s=0.0)
        return _PendingBatch(
            self, request, [PendingPart(self.router, part) for part in request.split(self._n_parts(request))]
        )

    def sampled(self, sampling: Sampling) -> PoolBackend:
        """Return a backend on the same actors that samples, or simulates noise."""
        return PoolBackend(self.router, sampling)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": AnswerCache()}  # the cache stays in its process

    def clear_cache(self) -> PoolBackend:
        """Drop all cached answers and return this backend, so that the actors must simulate (for measurements)."""
        self._cache.clear()
        return self

    def _record(self, request: CircuitRequest, parts: Sequence[PendingPart], answer: Tensor) -> None:
        """Note how long an answered batch took, by which the next one is cut, and cache its answer."""
        for part in parts:
            measured = part.busy_s / max(1, len(part.request.angles_bdnr))
            mean = self._circuit_s.get(request.kind, measured)
            self._circuit_s[request.kind] = (1 - _NEWEST) * mean + _NEWEST * measured
        if self.sampling is None:
            self._cache.put(request, answer)

    def _n_parts(self, request: CircuitRequest) -> int:
        batch = len(request.angles_bdnr)
        if batch <= 1:
            return 1
        most = min(len(self.router.membership.members()), batch)
        if (measured := self._circuit_s.get(request.kind)) is not None:
            work_s = batch * measured
        else:
            try:
                pick = AutoBackend().pick(request.spec, batch, request.readout)
            except CircuitMemoryError:  # too large for this machine; the actors see for themselves
                return most
            work_s = 1e-6 * batch * pick.predicted_us[pick.name]
        least = math.ceil(work_s / (_PART_OF_TIMEOUT * self.router.timeout_s))
        return min(batch, max(1, least, min(most, int(work_s / _PART_S))))


class _PendingBatch:
    """The answers of a batch, collected part by part."""

    def __init__(self, backend: PoolBackend, request: CircuitRequest, parts: Sequence[PendingPart]) -> None:
        self._backend = backend
        self._request = request
        self._parts = parts
        self._answer: Tensor | None = None

    def result(self) -> Tensor:
        """Return float64 of shape (b, width). CircuitError: an actor refused. CircuitsLost: none answered."""
        if self._answer is None:
            # From now on: a batch that was requested ahead may have lain there for long.
            deadline = time.monotonic() + longest_wait_s(self._backend.router.timeout_s)
            answers = [part.result(deadline) for part in self._parts]
            self._answer = answers[0] if len(answers) == 1 else torch.cat(answers)
            self._backend._record(self._request, self._parts, self._answer)
        return self._answer

    @property
    def busy_s(self) -> float:
        """Seconds that the actors simulated for this batch, together."""
        return sum(part.busy_s for part in self._parts)
