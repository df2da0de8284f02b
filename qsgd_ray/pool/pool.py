"""A pool of circuit actors on Ray: it starts, scales and ends them, and hands out the backend that uses them.

A study starts one pool before its first trial, outside of every trial's placement group: trials take the CPUs that the
pool leaves. Training workers receive the pool's `PoolBackend`.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError

from qsgd_ray.circuits.errors import CircuitsLost
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.errors import one_line
from qsgd_ray.pool._actor import CircuitActor
from qsgd_ray.pool._autoscaler import Autoscaler
from qsgd_ray.pool._autoscaler_policy import ScalingPolicy
from qsgd_ray.pool._membership import Membership
from qsgd_ray.pool._pending import ATTEMPTS, longest_wait_s
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool.backend import PoolBackend
from qsgd_ray.pool.router import Router

# Asked of every actor once: its answer says that its engine works.
_FIRST_REQUEST = CircuitRequest(CircuitSpec(1, depth=1), np.zeros((1, 1, 1, 2)), "z", None, None, 1)


class CircuitPool:
    """Circuit actors, more of them while requests wait. They live until `close`, or as long as this object's process.

    Args:
        n_actors: number of actors from the start, and the fewest later, >= 1.
        cpus_per_actor: CPUs that each reserves in Ray; rounded down, at least 1, the threads of its engine.
        timeout_s: seconds that a single call may take before its actor is taken to hang and restarted, > 0.
        engine: "auto", or an exact engine of `make_backend`; the same for all actors.
        actor: class of the actors; tests pass their own.
        max_actors: most actors; None: `n_actors`.
        resources: what each actor reserves in Ray besides CPUs, by name; None: nothing.
        idle_s: seconds without use after which actors beyond `n_actors` go.

    Example:
        >>> pool = CircuitPool(n_actors=2, cpus_per_actor=1, timeout_s=60)  # doctest: +SKIP
        >>> pool.wait_until_ready(timeout_s=120)  # doctest: +SKIP
        >>> backend = pool.backend()  # doctest: +SKIP
    """

    def __init__(
        self,
        n_actors: int,
        cpus_per_actor: float,
        timeout_s: float,
        engine: str = "auto",
        actor: type[CircuitActor] = CircuitActor,
        *,
        max_actors: int | None = None,
        resources: dict[str, float] | None = None,
        idle_s: float = 30.0,
    ) -> None:
        # No task retries: the process that wants the answer sends a lost request again (_pending.py). Repeated by Ray,
        # a request that hangs would hang the restarted actor, with nobody waiting for it.
        actor_class = ray.remote(
            num_cpus=cpus_per_actor,
            resources=resources,
            max_restarts=-1,
            max_task_retries=0,
            concurrency_groups={"health": 1},
        )(actor)
        self._secret = secrets.token_bytes(32)
        threads = max(1, int(cpus_per_actor))

        def start() -> Any:
            return actor_class.remote(threads, engine, self._secret)

        members = {number: start() for number in range(n_actors)}
        self._timeout_s = timeout_s
        self._membership = Membership(members)
        policy = ScalingPolicy(n_actors, max(n_actors, max_actors or 0), idle_s)
        self._autoscaler = Autoscaler(start, policy, self._membership, members)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the first `n_actors` actors answer. CircuitsLost: they did not within `timeout_s` seconds."""
        until = time.monotonic() + timeout_s
        actors = list(self._membership.members.values())
        calls = {actor.answer.remote(_FIRST_REQUEST): (actor, 1) for actor in actors}
        while calls:
            done, _ = ray.wait(list(calls), timeout=max(0.0, until - time.monotonic()))
            if not done:
                raise CircuitsLost(
                    f"{len(calls)} of {len(actors)} circuit actors did not start within {timeout_s:g} s: does the "
                    "cluster have the CPUs that resources.cpus_per_circuit_actor asks for, on resources.circuit_nodes?"
                )
            actor, attempt = calls.pop(done[0])
            try:
                ray.get(done[0])
            except RayActorError as error:
                # An actor that is lost at its first answer starts again, as it would at any later one. Its death is
                # counted, not the calls that Ray refuses while it restarts: on a busy machine those are many.
                if attempt > ATTEMPTS:
                    # Ray's message is pages long; the last line is the cause.
                    raise CircuitsLost(f"a circuit actor does not start: {one_line(error, part='last')}") from None
                restarted = actor.status.options(max_task_retries=-1).remote()
                ray.wait([restarted], timeout=max(0.0, until - time.monotonic()))
                calls[actor.answer.remote(_FIRST_REQUEST)] = (actor, attempt + 1)
        self._autoscaler.mark_all_ready()

    def backend(self) -> PoolBackend:
        """Return a new backend for a training worker; it can be sent to other processes."""
        return PoolBackend(Router(self._membership.reader(), self._timeout_s, self._secret))

    def size(self) -> int:
        """Return the number of actors that answer now."""
        return len(self._membership.members)

    @staticmethod
    def longest_wait_s(timeout_s: float) -> float:
        """Return the longest time in seconds that an answer takes in a pool of this `timeout_s`, give or take a few."""
        return longest_wait_s(timeout_s)

    def close(self) -> None:
        """End all actors."""
        for actor in self._autoscaler.stop():
            ray.kill(actor)
        self._membership.close()
