"""The circuit pool as a training worker sees it: circuits in, cut over the actors, the answers in their order out.

Actors die, hang and come back; circuits are pure, so a part that was lost is asked again, and the answer is the same
bits whoever gives it, however the batch was cut.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from torch import Tensor

from qsgd_ray.circuits.auto import AutoBackend
from qsgd_ray.circuits.backends import Answered, Pending, Sampling
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError, CircuitsLost
from qsgd_ray.circuits.kinds import Readout
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.pool_metrics import PoolMetrics

# A part is worth a call of its own from so much work on: there and back takes a millisecond or two.
PART_S = 2e-3
# A part that was lost is asked again, this often in all.
ATTEMPTS = 4
# How long an actor may take to say how long it has been at work; a process that simulates does so beside its work.
HEALTH_S = 5.0
# Calls under way to one actor, at most: two keep it busy, more only wait there.
IN_FLIGHT = 4
CACHE_BYTES = 2**26


@dataclass(frozen=True)
class Asked:
    """Circuits as they travel: numpy arrays, and `of` how many circuits these are a part."""

    spec: CircuitSpec
    angles_bdnr: NDArray[np.float64]
    readout: Readout
    keys_b: NDArray[np.int64] | None
    sampling: Sampling | None
    of: int

    def parts(self, n: int) -> list[Asked]:
        """In n parts that differ by one circuit at most."""
        edges = [len(self.angles_bdnr) * i // n for i in range(n + 1)]
        return [
            replace(
                self,
                angles_bdnr=self.angles_bdnr[start:stop],
                keys_b=None if self.keys_b is None else self.keys_b[start:stop],
            )
            for start, stop in itertools.pairwise(edges)
        ]


@dataclass
class PoolBackend:
    """A `CircuitBackend` on the pool's actors, which can be sent to other processes; it samples where it is asked to.

    A batch is cut over the actors by what its circuits were measured to take, at first by what they are predicted to.
    Exact answers are kept, up to 64 MiB of them in a process, and not asked for again.
    """

    actors: list[Any]
    timeout_s: float
    sampling: Sampling | None = None
    _turn: int = 0
    _seconds: dict[tuple[CircuitSpec, Readout], float] = field(default_factory=dict)  # a circuit, as measured
    _in_flight: list[ray.ObjectRef] = field(default_factory=list)
    _cache: OrderedDict[bytes, Tensor] = field(default_factory=OrderedDict)

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        """Send the circuits to the actors whose turn it is; returns at once, but for calls beyond `IN_FLIGHT`."""
        angles = angles_bdnr.detach().to("cpu", torch.float64).contiguous().numpy()
        keys = None if keys_b is None else keys_b.cpu().numpy()
        asked = Asked(spec, angles, readout, keys, self.sampling, len(angles))
        key = None if self.sampling is not None else _content(asked)
        metrics = PoolMetrics.here()
        metrics.asked(len(angles))
        if key is not None and key in self._cache:
            self._cache.move_to_end(key)
            metrics.cache_hit()
            return Answered(self._cache[key].clone())
        parts = [_Part(self, part) for part in asked.parts(self._n_parts(asked))]
        return PoolPending(self, key, parts)

    def sampled(self, sampling: Sampling) -> PoolBackend:
        """The same actors, answering by measurements, or under noise."""
        return PoolBackend(self.actors, self.timeout_s, sampling)

    def __getstate__(self) -> dict[str, Any]:
        # What this process has asked and kept stays here.
        return {**self.__dict__, "_in_flight": [], "_cache": OrderedDict()}

    def next_actor(self) -> Any:
        """The one whose turn it is."""
        self._turn += 1
        return self.actors[self._turn % len(self.actors)]

    def send(self, asked: Asked, actor: Any) -> ray.ObjectRef:
        """Ask; waits for an answer to come where too many are under way."""
        if len(self._in_flight) >= IN_FLIGHT * len(self.actors):
            _, self._in_flight = ray.wait(self._in_flight, num_returns=1, timeout=self.timeout_s)
        answer = actor.answer.remote(asked)
        self._in_flight.append(answer)
        return answer

    def arrived(self, answer: ray.ObjectRef, asked: Asked, busy_s: float) -> None:
        """An answer is here, that took the actor so long."""
        if answer in self._in_flight:
            self._in_flight.remove(answer)
        kind = asked.spec, asked.readout
        measured = busy_s / max(1, len(asked.angles_bdnr))
        self._seconds[kind] = 0.8 * self._seconds.get(kind, measured) + 0.2 * measured

    def keep(self, key: bytes, answer: Tensor) -> None:
        """For whoever asks the same again."""
        self._cache[key] = answer.clone()
        while sum(kept.nbytes for kept in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)

    def _n_parts(self, asked: Asked) -> int:
        batch = len(asked.angles_bdnr)
        most = min(len(self.actors), batch)
        if most <= 1:
            return 1
        if (asked.spec, asked.readout) in self._seconds:
            work_s = batch * self._seconds[asked.spec, asked.readout]
        else:
            try:
                picked = AutoBackend().pick(asked.spec, batch, asked.readout)
            except CircuitMemoryError:  # too large here; the actors see for themselves
                return most
            work_s = 1e-6 * batch * picked.predicted_us[picked.name]
        return max(1, min(most, int(work_s / PART_S)))


class PoolPending:
    """Answers on their way."""

    def __init__(self, pool: PoolBackend, key: bytes | None, parts: Sequence[_Part]) -> None:
        self._pool = pool
        self._key = key
        self._parts = parts
        self._answer: Tensor | None = None

    def result(self) -> Tensor:
        """(batch, width) float64. CircuitError: an actor refused. CircuitsLost: none answered."""
        if self._answer is None:
            self._answer = torch.cat([part.result() for part in self._parts])
            if self._key is not None:
                self._pool.keep(self._key, self._answer)
        return self._answer


class _Part:
    """Circuits asked of one actor, and of others after it where it is lost."""

    def __init__(self, pool: PoolBackend, asked: Asked) -> None:
        self._pool = pool
        self._asked = asked
        self._actor = pool.next_actor()
        self._send(self._actor)

    def _send(self, actor: Any) -> None:
        self._sent = time.perf_counter()
        self._answer = self._pool.send(self._asked, actor)

    def result(self) -> Tensor:
        why = ""
        for attempt in range(ATTEMPTS):
            try:
                if attempt:
                    self._ask_again()
                values, busy_s = self._arrival()
            except RayTaskError as error:
                raise CircuitError(f"a circuit actor failed: {error.cause}") from error
            except _Hung as error:
                why = str(error)
            except (RayActorError, RayError) as error:
                why = f"a circuit actor was lost and could not be restarted: {str(error).strip().partition(chr(10))[0]}"
            else:
                PoolMetrics.here().answered(time.perf_counter() - self._sent - busy_s)
                self._pool.arrived(self._answer, self._asked, busy_s)
                return torch.from_numpy(np.array(values))
        raise CircuitsLost(f"{why} ({ATTEMPTS} attempts)")

    def _ask_again(self) -> None:
        """The next actor, once it is there: one that was just killed takes seconds to start again."""
        PoolMetrics.here().retried()
        self._actor = self._pool.next_actor()
        try:
            ray.get(self._actor.running_s.remote(), timeout=self._pool.timeout_s)
        except GetTimeoutError:
            raise _Hung(f"a circuit actor did not start again within {self._pool.timeout_s:g} s") from None
        self._send(self._actor)

    def _arrival(self) -> tuple[NDArray[np.float64], float]:
        """Wait for it as long as the actor is at work, but not for one call longer than the timeout."""
        waited_until = time.monotonic() + 10 * self._pool.timeout_s
        while True:
            try:
                arrived: tuple[NDArray[np.float64], float] = ray.get(self._answer, timeout=self._pool.timeout_s)
            except GetTimeoutError:
                told = f"the circuit pool did not answer within {self._pool.timeout_s:g} s"
                if not self._at_work() or time.monotonic() > waited_until:
                    ray.kill(self._actor, no_restart=False)  # a process that hangs keeps its CPUs
                    raise _Hung(told) from None
            else:
                return arrived

    def _at_work(self) -> bool:
        """Is the actor there, and at no call for longer than the timeout? The calls of others may be before this."""
        try:
            running_s = ray.get(self._actor.running_s.remote(), timeout=min(HEALTH_S, self._pool.timeout_s))
        except RayError:  # GetTimeoutError is one
            return False
        return bool(running_s < self._pool.timeout_s)


class _Hung(Exception):
    """An actor does not answer."""


def _content(asked: Asked) -> bytes:
    """What the answer depends on; the actors run the versions of this process."""
    digest = blake2b(f"{asked.spec} {asked.readout} {asked.angles_bdnr.shape}".encode(), digest_size=16)
    digest.update(asked.angles_bdnr.data)
    return digest.digest()
