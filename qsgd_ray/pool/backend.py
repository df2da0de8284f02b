"""The circuit pool as a training worker sees it: circuits in, cut over the actors, the answers in their order out."""

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
from qsgd_ray.pool._metrics import PoolMetrics
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool.pending import Part, longest_wait_s
from qsgd_ray.pool.router import Switchboard

# A part is worth a call of its own from so much work on: there and back takes a millisecond or two.
PART_S = 2e-3
# A part takes at most this share of the timeout, so that a long batch is not taken to hang.
PART_OF_TIMEOUT = 0.1


@dataclass
class PoolBackend:
    """A `CircuitBackend` on the pool's actors, which can be sent to other processes; it samples where it is asked to.

    A batch is cut over the actors by what its circuits were measured to take, at first by what they are predicted to.
    Exact answers are kept, up to 64 MiB of them in a process, and not asked for again.
    """

    actors: Switchboard
    sampling: Sampling | None = None
    _seconds: dict[bytes, float] = field(default_factory=dict)  # a circuit of a kind, as measured
    _cache: AnswerCache = field(default_factory=AnswerCache)

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        """Send the circuits to the actors whose turn it is; returns at once, but where too many calls are under way.

        CircuitError: angles of another shape, or no real floats.
        """
        try:
            spec.check_angles(angles_bdnr)
        except ValueError as error:
            raise CircuitError(str(error)) from None
        # Copies of our own: they are kept for the cache, and for actors that are lost.
        angles = np.array(angles_bdnr.to(torch.float64).numpy(force=True), order="C")
        keys = None if keys_b is None else np.array(keys_b.cpu().numpy(), dtype=np.int64)
        asked = CircuitRequest(spec, angles, readout, keys, self.sampling, len(angles))
        kept = None if self.sampling is not None else self._cache.get(asked)
        PoolMetrics.here().asked(len(angles), kept=kept is not None)
        if kept is not None:
            return Answered(kept, busy_s=0.0)
        return PoolPending(self, asked, [Part(self.actors, part) for part in asked.parts(self._n_parts(asked))])

    def sampled(self, sampling: Sampling) -> PoolBackend:
        """The same actors, answering by measurements, or under noise."""
        return PoolBackend(self.actors, sampling)

    def __getstate__(self) -> dict[str, Any]:
        # What this process keeps stays here.
        return {**self.__dict__, "_cache": AnswerCache()}

    def forgetful(self) -> PoolBackend:
        """This backend, which has forgotten every answer: its actors must be asked."""
        self._cache.clear()
        return self

    def answered(self, asked: CircuitRequest, parts: Sequence[Part], answer: Tensor) -> None:
        """All of it is here: how long it took says how the next is cut, and whoever asks the same again gets it."""
        for part in parts:
            measured = part.busy_s / max(1, len(part.asked.angles_bdnr))
            self._seconds[asked.kind] = 0.8 * self._seconds.get(asked.kind, measured) + 0.2 * measured
        if self.sampling is None:
            self._cache.put(asked, answer)

    def _n_parts(self, asked: CircuitRequest) -> int:
        batch = len(asked.angles_bdnr)
        if batch <= 1:
            return 1
        most = min(len(self.actors.roster.members()), batch)
        if (measured := self._seconds.get(asked.kind)) is not None:
            work_s = batch * measured
        else:
            try:
                picked = AutoBackend().pick(asked.spec, batch, asked.readout)
            except CircuitMemoryError:  # too large here; the actors see for themselves
                return most
            work_s = 1e-6 * batch * picked.predicted_us[picked.name]
        least = math.ceil(work_s / (PART_OF_TIMEOUT * self.actors.timeout_s))
        return min(batch, max(1, least, min(most, int(work_s / PART_S))))


class PoolPending:
    """Answers on their way."""

    def __init__(self, pool: PoolBackend, asked: CircuitRequest, parts: Sequence[Part]) -> None:
        self._pool = pool
        self._asked = asked
        self._parts = parts
        self._answer: Tensor | None = None

    def result(self) -> Tensor:
        """(batch, width) float64. CircuitError: an actor refused. CircuitsLost: none answered."""
        if self._answer is None:
            # From now on: what was asked ahead may have lain there for long.
            deadline = time.monotonic() + longest_wait_s(self._pool.actors.timeout_s)
            answers = [part.result(deadline) for part in self._parts]
            self._answer = answers[0] if len(answers) == 1 else torch.cat(answers)
            self._pool.answered(self._asked, self._parts, self._answer)
        return self._answer

    @property
    def busy_s(self) -> float:
        """Seconds that actors worked for it."""
        return sum(part.busy_s for part in self._parts)
