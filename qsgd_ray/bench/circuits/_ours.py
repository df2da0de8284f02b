"""The engines of this package as the bench measures them; a new one is a class here and an entry in `OURS`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qsgd_ray.bench.circuits.engine import Call, Circuits, Engine, What
from qsgd_ray.circuits.backends.gradients import answer
from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate

# An engine that the cost model expects to take more than so many times as long as the best is left out.
_FAR = 10


class _Auto(Engine):
    """`auto` behind the protocol, in float64 whatever the angles are, as everyone meets it."""

    name = "auto"

    def z(self, circuits: Circuits) -> Call | None:
        backend, angles = AutoBackend(), circuits.torch_angles()
        return lambda: backend.submit(circuits.spec, angles).result()

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        backend = AutoBackend()
        return _with_gradient(lambda angles: answer(backend, circuits.spec, angles), circuits)

    def share(self, spec: CircuitSpec, batch: int, what: What) -> int:  # noqa: ARG002
        return batch


class _Statevector(Engine):
    """The statevector engine itself."""

    name = "statevector"

    def states(self, circuits: Circuits) -> Call | None:
        angles = circuits.torch_angles()
        return lambda: simulate.statevector(circuits.spec, angles)

    def z(self, circuits: Circuits) -> Call | None:
        angles = circuits.torch_angles()
        return lambda: simulate.expectations(circuits.spec, angles)

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        return _with_gradient(lambda angles: simulate.expectations(circuits.spec, angles), circuits)


class _Chain(Engine):
    """The chain engine itself."""

    name = "chain"

    def z(self, circuits: Circuits) -> Call | None:
        angles = circuits.torch_angles()
        return lambda: chain.expectations(circuits.spec, angles)

    def z_and_gradient(self, circuits: Circuits) -> Call | None:
        return _with_gradient(lambda angles: chain.expectations(circuits.spec, angles), circuits)

    def share(self, spec: CircuitSpec, batch: int, what: What) -> int:  # noqa: ARG002
        predicted = AutoBackend().pick(spec, batch, "z", ("torch", "chain")).predicted_us
        return batch if predicted.get("chain", float("inf")) < _FAR * min(predicted.values()) else 0


def _with_gradient(expectations: Callable[[Tensor], Tensor], circuits: Circuits) -> Call:
    angles, cotangent = circuits.torch_angles().requires_grad_(), torch.tensor(circuits.cotangent_bn)

    def call() -> tuple[Tensor, Tensor]:
        z = expectations(angles)
        (gradient,) = torch.autograd.grad(z, angles, cotangent.to(z.dtype))
        return z.detach(), gradient

    return call


OURS: tuple[Engine, ...] = (_Auto(), _Statevector(), _Chain())
