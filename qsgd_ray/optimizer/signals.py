"""The signals s in Q_i = s_i(theta) * g_i, one protocol for all: blocks of coordinates in, one number a coordinate out.

arXiv 2511.01918, Eq. 2, is s_i = sin(pi*theta_i); a circuit of depth 1 without entanglement gives the same number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cache
from typing import Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from qsgd_ray import config
from qsgd_ray.circuits.backends.protocol import Answered, CircuitBackend, Pending, Sampling, SamplingBackend, busy_s
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Entangle, Rotation
from qsgd_ray.random_keys import random_words

KernelSignal = Literal["sine", "gradient", "given"]


class Signal(Protocol):
    """A source of s. `keyed`: it draws, and `submit` needs keys (random_keys.py)."""

    keyed: bool

    def submit(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Pending:
        """Ask for s at blocks of coordinates (batch, n); the Pending's result is (batch, n) float64, of circuits on the
        CPU, of closed forms where theta lies."""
        ...


class ClosedForm(ABC):
    """A signal that is no circuit: computed where theta lies, in its dtype (float32 at least)."""

    keyed = False
    pointwise = False  # s_i depends on theta_i alone
    kernel: KernelSignal = "given"  # what _one_pass.py makes of it: it has this one's formula, or is handed s

    def submit(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Pending:
        # Where theta lies, so that no GPU is waited for.
        return Answered(self.of(theta_bn.detach().to(torch.float64), keys_b))

    def of(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Tensor:
        """s at blocks of coordinates, (batch, n), a new tensor."""
        theta_bn = theta_bn.detach()
        if theta_bn.dtype not in (torch.float32, torch.float64):
            theta_bn = theta_bn.float()
        return self._of(theta_bn, keys_b)

    @abstractmethod
    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor: ...


class SineSignal(ClosedForm):
    """s_i = sin(pi*theta_i): Eq. 2, in closed form."""

    pointwise = True
    kernel = "sine"

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.mul(theta_bn, math.pi).sin_()


class ZeroSignal(ClosedForm):
    """s_i = 0: the control."""

    pointwise = True

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(theta_bn)


class GradientSignal(ClosedForm):
    """s_i = 1: Q is the plain gradient on the same coordinates."""

    pointwise = True
    kernel = "gradient"

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.ones_like(theta_bn)


class RandomSignSignal(ClosedForm):
    """s_i = r or -r with equal odds, r the root mean square of the block's sin(pi*theta): noise of the sine's size."""

    keyed = True

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:
        assert keys_b is not None
        squares = torch.mul(theta_bn, math.pi).sin_().square_().unbind(1)
        total = squares[0]
        for square in squares[1:]:  # in order, so that its bits do not depend on the batch
            total = total + square
        r_b1 = (total / len(squares)).sqrt_()[:, None]
        negative = torch.from_numpy(random_words(keys_b, theta_bn.shape[1]) >> np.uint64(63) != 0)
        return torch.where(negative.to(theta_bn.device), -r_b1, r_b1)


class ShuffledSignal(ClosedForm):
    """s_i = sin(pi*theta_j), j another coordinate of the block: all turned by 1 to n - 1 places, drawn anew each step.

    In a block of one coordinate there is no other: its own.
    """

    keyed = True

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:
        assert keys_b is not None
        n = theta_bn.shape[1]
        s_bn = torch.mul(theta_bn, math.pi).sin_()
        if n == 1:
            return s_bn
        turns_b1 = 1 + random_words(keys_b, 1) % np.uint64(n - 1)
        index = (turns_b1 + np.arange(n, dtype=np.uint64)) % np.uint64(n)
        return s_bn.gather(1, torch.from_numpy(index.astype(np.int64)).to(s_bn.device))


class CircuitSignal:
    """s = <Z_i> of the circuit whose rotations turn by -pi*theta_i, +pi*theta_i and so on, one circuit a block.

    A block narrower than the others is a circuit of that many qubits. A block with a coordinate that is not finite has
    no circuit: its s is nan, as sin(pi*nan) is, so that a diverged run looks diverged whatever the source. `keyed`: the
    backend draws.
    """

    def __init__(
        self,
        backend: CircuitBackend,
        depth: int = 2,
        entangle: Entangle = "chain",
        rotations: tuple[Rotation, ...] = ("ry", "rz"),
        keyed: bool = False,
    ) -> None:
        self.backend = backend
        self.keyed = keyed
        self._specs = {1: CircuitSpec(1, depth, entangle, rotations)}

    def spec(self, width: int) -> CircuitSpec:
        """The circuit of a block of `width` coordinates."""
        if width not in self._specs:
            self._specs[width] = replace(self._specs[1], n_qubits=width)
        return self._specs[width]

    def submit(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Pending:
        theta_bn = _float64(theta_bn)
        spec = self.spec(theta_bn.shape[1])
        # The sum of finite numbers may overflow, so it only says when to look closer.
        if math.isfinite(theta_bn.sum()):
            return self.backend.submit(spec, _angles(spec, theta_bn), "z", keys_b)
        finite_b = theta_bn.isfinite().all(1)
        s_bn = torch.full(theta_bn.shape, math.nan, dtype=torch.float64)
        if not finite_b.any():
            return Answered(s_bn)
        keys_b = None if keys_b is None else keys_b[finite_b]
        return _Partly(s_bn, finite_b, self.backend.submit(spec, _angles(spec, theta_bn[finite_b]), "z", keys_b))


class _Partly:
    """nan, except the blocks that were asked."""

    def __init__(self, s_bn: Tensor, asked_b: Tensor, pending: Pending) -> None:
        self._s_bn = s_bn
        self._asked_b = asked_b
        self._pending = pending

    def result(self) -> Tensor:
        self._s_bn[self._asked_b] = self._pending.result()
        return self._s_bn

    @property
    def busy_s(self) -> float | None:
        return busy_s(self._pending)


def circuit_angles(spec: CircuitSpec, theta_bn: Tensor) -> Tensor:
    """The angles of a block, the same in every layer: (batch, depth, n, len(rotations)) float64.

    The first rotation takes a_di = -pi*theta_i, the second b_di = pi*theta_i (the paper's Ry and Rz); further ones go
    on with alternating signs.
    """
    return _angles(spec, _float64(theta_bn))


def _angles(spec: CircuitSpec, theta_bn: Tensor) -> Tensor:
    batch, n = theta_bn.shape
    turned_b1nr = theta_bn.reshape(batch, 1, n, 1) * _turns(len(spec.rotations))
    return turned_b1nr.expand(-1, spec.depth, -1, -1)


@cache
def _turns(n_rotations: int) -> Tensor:
    return torch.tensor([math.pi if index % 2 else -math.pi for index in range(n_rotations)], dtype=torch.float64)


CLOSED_FORMS: dict[str, type[ClosedForm]] = {
    "sine": SineSignal,
    "zero": ZeroSignal,
    "gradient": GradientSignal,
    "random_sign": RandomSignSignal,
    "shuffled": ShuffledSignal,
}


def make_signal(perturbation: config.Perturbation, backend: CircuitBackend | None) -> Signal:
    """The signal of `perturbation.source`; circuits go to `backend`, or are simulated in process where it is None.

    ValueError: sampled or noisy answers asked of a backend that gives one kind only. CircuitError: Aer is not there.
    """
    source, depth, entangle = cast(str, perturbation.source), cast(int, perturbation.depth), perturbation.entangle
    if source in CLOSED_FORMS:
        return CLOSED_FORMS[source]()
    backend = backend or AutoBackend()
    if source != "circuit":
        if not isinstance(backend, SamplingBackend):
            raise ValueError(
                f"circuits: got {type(backend).__name__} for source {source}; allowed: a backend that "
                f"samples (auto, the pool), or source circuit, which takes this one's answers as they are"
            )
        backend = backend.sampled(Sampling(perturbation.shots, perturbation.noise))
    return CircuitSignal(
        backend, depth, cast(Entangle, entangle), perturbation.rotations, keyed=perturbation.shots is not None
    )


def _float64(theta_bn: Tensor) -> Tensor:
    return theta_bn.detach().to("cpu", torch.float64)
