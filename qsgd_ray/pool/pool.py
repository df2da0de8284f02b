"""Circuits on Ray actors, behind the same protocol as circuits at home: angles in, expectation values out.

A pool is started once a study, before its first trial and outside of every trial's placement group: trials take what
the pool leaves. What travels to the training workers is the pool's `PoolBackend`.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError

from qsgd_ray.circuits.errors import CircuitsLost
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.errors import one_line
from qsgd_ray.pool._actor import CircuitActor
from qsgd_ray.pool._autoscaler import Keeper
from qsgd_ray.pool._autoscaler_policy import PoolSize
from qsgd_ray.pool._membership import Roster
from qsgd_ray.pool._request import CircuitRequest
from qsgd_ray.pool.backend import PoolBackend
from qsgd_ray.pool.pending import ATTEMPTS
from qsgd_ray.pool.router import Switchboard


class CircuitPool:
    """`n_actors` circuit actors, up to `most` of them while requests wait, alive as long as this object's owner.

    `timeout_s`: for how long a single call may go on before its actor is taken to hang. `engine`: as of `make_backend`.
    `resources`: what an actor asks of Ray besides CPUs. `idle_s`: after how long without use the actors beyond
    `n_actors` go.
    """

    def __init__(
        self,
        n_actors: int,
        cpus_per_actor: float,
        timeout_s: float,
        engine: str = "auto",
        actor: type[CircuitActor] = CircuitActor,
        *,
        most: int | None = None,
        resources: dict[str, float] | None = None,
        idle_s: float = 30.0,
    ) -> None:
        # A call that dies with its actor is asked again by whoever wants the answer (pending.py): repeated by Ray, one
        # that hangs would hang the restarted actor for nobody.
        shell = ray.remote(
            num_cpus=cpus_per_actor,
            resources=resources,
            max_restarts=-1,
            max_task_retries=0,
            concurrency_groups={"health": 1},
        )(actor)
        self._secret = secrets.token_bytes(32)
        threads = max(1, int(cpus_per_actor))

        def start() -> Any:
            return shell.remote(threads, engine, self._secret)

        members = {number: start() for number in range(n_actors)}
        self._timeout_s = timeout_s
        self._roster = Roster(members)
        self._keeper = Keeper(start, PoolSize(n_actors, max(n_actors, most or 0), idle_s), self._roster, members)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return when every actor of the smallest pool answers; `CircuitsLost` where they did not start in time."""
        one_qubit = CircuitRequest(CircuitSpec(1, depth=1), np.zeros((1, 1, 1, 2)), "z", None, None, 1)
        # One that is lost at its first answer starts again, as any later one does.
        calls = [
            actor.answer.options(max_task_retries=ATTEMPTS).remote(one_qubit) for actor in self._roster.members.values()
        ]
        ready, waiting = ray.wait(calls, num_returns=len(calls), timeout=timeout_s)
        if waiting:
            raise CircuitsLost(
                f"{len(waiting)} of {len(calls)} circuit actors did not start within {timeout_s:g} s: does the cluster "
                "have the CPUs that resources.cpus_per_circuit_actor asks for, on resources.circuit_nodes?"
            )
        try:
            ray.get(ready)
        except RayActorError as error:
            # Ray's words are pages long; the last line is the cause.
            raise CircuitsLost(f"a circuit actor does not start: {one_line(error, part='last')}") from None
        self._keeper.all_answer()

    def backend(self) -> PoolBackend:
        """What a training worker gets."""
        return PoolBackend(Switchboard(self._roster.view(), self._timeout_s, self._secret))

    def size(self) -> int:
        """How many actors answer now."""
        return len(self._roster.members)

    def close(self) -> None:
        """End the actors."""
        for actor in self._keeper.stop():
            ray.kill(actor)
        self._roster.close()
