"""Circuits on Ray actors, behind the same protocol as circuits at home: angles in, expectation values out.

The actor is a thin shell over a `CircuitBackend`. A pool is started once a study, before its first trial and outside of
every trial's placement group, so that no trial can starve what it waits for; what travels to the training workers is
the pool's `PoolBackend`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from torch import Tensor

from qsgd_ray.circuits.auto import AutoBackend
from qsgd_ray.circuits.backends import Sampling
from qsgd_ray.circuits.errors import CircuitError, CircuitsLost
from qsgd_ray.circuits.kinds import Readout
from qsgd_ray.circuits.spec import CircuitSpec


class CircuitActor:
    """One simulating process: an `AutoBackend` that answers over the network."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        exact = AutoBackend(memory_bytes=psutil.virtual_memory().total, threads=threads)
        self._backends: dict[Sampling | None, AutoBackend] = {None: exact}

    def answer(
        self,
        spec: CircuitSpec,
        angles_bdnr: NDArray[np.float64],
        readout: Readout = "z",
        keys_b: NDArray[np.int64] | None = None,
        sampling: Sampling | None = None,
    ) -> NDArray[np.float64]:
        """(batch, spec.answer_width(readout)); `CircuitMemoryError` where this node can hold none of it."""
        if sampling not in self._backends:
            assert sampling is not None
            self._backends[sampling] = self._backends[None].sampled(sampling)
        backend = self._backends[sampling]
        # Ray hands out read-only arrays; torch wants to own what it wraps.
        angles = torch.from_numpy(angles_bdnr.copy())
        keys = None if keys_b is None else torch.from_numpy(keys_b.copy())
        answer: NDArray[np.float64] = backend.submit(spec, angles, readout, keys).result().numpy()
        return answer


@dataclass(frozen=True)
class PoolPending:
    """An answer on its way; `result` waits for it at most `timeout_s` seconds."""

    answer: ray.ObjectRef
    timeout_s: float

    def result(self) -> Tensor:
        """(batch, width) float64. CircuitError: an actor refused. CircuitsLost: none answered."""
        try:
            return torch.from_numpy(np.array(ray.get(self.answer, timeout=self.timeout_s)))
        except GetTimeoutError:
            raise CircuitsLost(f"the circuit pool did not answer within {self.timeout_s:g} s") from None
        except RayTaskError as error:
            raise CircuitError(f"a circuit actor failed: {error.cause}") from error
        except RayActorError as error:
            raise CircuitsLost(f"a circuit actor was lost and could not be restarted: {error}") from error


@dataclass
class PoolBackend:
    """The pool as seen by a training worker: a `CircuitBackend` that can be sent to other processes."""

    actors: list[Any]
    timeout_s: float
    turn: int = 0
    sampling: Sampling | None = None

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> PoolPending:
        """Send the circuits to the next actor in turn; returns at once."""
        actor = self.actors[self.turn % len(self.actors)]
        self.turn += 1
        angles = angles_bdnr.detach().to("cpu", torch.float64).numpy()
        keys = None if keys_b is None else keys_b.cpu().numpy()
        return PoolPending(actor.answer.remote(spec, angles, readout, keys, self.sampling), self.timeout_s)

    def sampled(self, sampling: Sampling) -> PoolBackend:
        """The same actors, answering by measurements, or under noise."""
        return replace(self, sampling=sampling)


class CircuitPool:
    """`n_actors` circuit actors, alive as long as this object's owner keeps it."""

    def __init__(self, n_actors: int, cpus_per_actor: float, timeout_s: float) -> None:
        # A call that dies with its actor is repeated on the restarted one: circuits are pure, the answer is the same.
        shell = ray.remote(num_cpus=cpus_per_actor, max_restarts=-1, max_task_retries=2)(CircuitActor)
        self._actors = [shell.remote(threads=max(1, int(cpus_per_actor))) for _ in range(n_actors)]
        self._timeout_s = timeout_s

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return when every actor answers; `CircuitsLost` where the cluster did not start them in time."""
        one_qubit = CircuitSpec(1, depth=1)
        calls = [actor.answer.remote(one_qubit, np.zeros((1, 1, 1, 2))) for actor in self._actors]
        ready, waiting = ray.wait(calls, num_returns=len(calls), timeout=timeout_s)
        if waiting:
            raise CircuitsLost(
                f"{len(waiting)} of {len(calls)} circuit actors did not start within {timeout_s:g} s: "
                "does the cluster have the CPUs that resources.cpus_per_circuit_actor asks for?"
            )
        ray.get(ready)

    def backend(self) -> PoolBackend:
        """What a training worker gets."""
        return PoolBackend(self._actors, self._timeout_s)

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
