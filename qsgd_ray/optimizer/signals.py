"""The signals s in Q_i = s_i(theta) * g_i, one protocol for all: blocks of coordinates in, one number a coordinate out.

Eq. 2 of arXiv 2511.01918 is s_i = sin(pi * theta_i); a circuit of depth 1 without entanglement gives the same number.
A new source is a `ClosedForm` (see `_CLOSED_FORMS`) or another backend for `CircuitSignal`.

Shapes: b blocks, n coordinates of a block, d layers, r rotations a layer.
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
from qsgd_ray.circuits.derivatives import has_tangent
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Entangle, Rotation
from qsgd_ray.random_keys import random_words

KernelSignal = Literal["sine", "gradient", "given"]


class Signal(Protocol):
    """A source of s.

    Attributes:
        keyed: True where the source draws random numbers, so that `submit` needs keys.
    """

    keyed: bool

    def submit(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Pending:
        """Submit blocks of coordinates.

        Args:
            theta_bn: shape (b, n), any real dtype and device.
            keys_b: uint64 keys of the blocks' draws, shape (b,) (random_keys.py); None where `keyed` is False.

        Returns:
            The pending answer. Its result is s, float64, shape (b, n): on the CPU for circuits, on the device of
            theta for closed forms.
        """
        ...


class ClosedForm(ABC):
    """A signal that needs no circuit: computed on the device of theta, in its dtype (float32 at least).

    Attributes:
        keyed: True where it draws.
        pointwise: True where s_i depends on theta_i alone.
        kernel: the formula that the C++ kernel of the one-pass step has for it; "given": it has none and takes s.
    """

    keyed = False
    pointwise = False
    kernel: KernelSignal = "given"

    def submit(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Pending:
        """Answer at once, in float64, on the device of theta; see `Signal.submit`.

        Args:
            theta_bn: shape (b, n).
            keys_b: keys of the blocks' draws, shape (b,); None where `keyed` is False.
        """
        # On the device of theta, so that no GPU is waited for.
        return Answered(self.of(_without_graph(theta_bn).to(torch.float64), keys_b))

    def of(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Tensor:
        """Return s of blocks of coordinates, a new tensor of shape (b, n).

        Args:
            theta_bn: shape (b, n), or any shape at all where `pointwise` is True. float32 and float64 are computed as
                such, other dtypes in float32.
            keys_b: keys of the blocks' draws, shape (b,); None where `keyed` is False.
        """
        theta_bn = _without_graph(theta_bn)
        if theta_bn.dtype not in (torch.float32, torch.float64):
            theta_bn = theta_bn.float()
        return self._of(theta_bn, keys_b)

    @abstractmethod
    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:
        """Return s, a new tensor; theta is float32 or float64."""


def _sin_pi(theta: Tensor) -> Tensor:
    """Return sin(pi * theta), a new tensor; pi * theta alone would lose digits with the size of theta.

    fmod is exact, and leaves |theta| < 2 as it is.
    """
    return torch.fmod(theta, 2).mul_(math.pi).sin_()


class _SineSignal(ClosedForm):
    """s_i = sin(pi * theta_i): Eq. 2 of arXiv 2511.01918, in closed form."""

    pointwise = True
    kernel = "sine"

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:  # noqa: ARG002
        return _sin_pi(theta_bn)


class _ZeroSignal(ClosedForm):
    """s_i = 0: the control."""

    pointwise = True

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(theta_bn)


class _GradientSignal(ClosedForm):
    """s_i = 1: Q is the plain gradient on the same coordinates."""

    pointwise = True
    kernel = "gradient"

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:  # noqa: ARG002
        return torch.ones_like(theta_bn)


class _RandomSignSignal(ClosedForm):
    """s_i = r or -r with equal odds, r the root mean square of the block's sin(pi * theta).

    The control of matched noise: as large as the sine, without its sign.
    """

    keyed = True

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:
        assert keys_b is not None
        squares = _sin_pi(theta_bn).square_().unbind(1)
        total = squares[0]
        for square in squares[1:]:  # in order, so that its bits do not depend on the batch
            total = total + square
        r_b1 = (total / len(squares)).sqrt_()[:, None]
        negative = torch.from_numpy(random_words(keys_b, theta_bn.shape[1]) >> np.uint64(63) != 0)
        return torch.where(negative.to(theta_bn.device), -r_b1, r_b1)


class _ShuffledSignal(ClosedForm):
    """s_i = sin(pi * theta_j), j another coordinate of the block.

    All coordinates of a block are rotated by the same 1 to n - 1 positions, drawn anew at each step. A block of one
    coordinate keeps its own.
    """

    keyed = True

    def _of(self, theta_bn: Tensor, keys_b: Tensor | None) -> Tensor:
        assert keys_b is not None
        n = theta_bn.shape[1]
        s_bn = _sin_pi(theta_bn)
        if n == 1:
            return s_bn
        shifts_b1 = 1 + random_words(keys_b, 1) % np.uint64(n - 1)
        index = (shifts_b1 + np.arange(n, dtype=np.uint64)) % np.uint64(n)
        return s_bn.gather(1, torch.from_numpy(index.astype(np.int64)).to(s_bn.device))


class CircuitSignal:
    """s_i = <Z_i> of a circuit for each block, whose rotations turn by -pi * theta_i, +pi * theta_i and so on.

    A block narrower than the others is a circuit of that many qubits. A block with a coordinate that is not finite has
    no circuit: its s is NaN, as sin(pi * NaN) is, so that a diverged run looks diverged whatever the source.

    Attributes:
        backend: answers the circuits.
        keyed: True where the backend draws.
    """

    def __init__(
        self,
        backend: CircuitBackend,
        depth: int = 2,
        entangle: Entangle = "chain",
        rotations: tuple[Rotation, ...] = ("ry", "rz"),
        keyed: bool = False,
    ) -> None:
        """Set the circuit.

        Args:
            backend: answers the circuits.
            depth: layers, >= 1.
            entangle: entangling gates of a layer, as in `CircuitSpec`.
            rotations: rotations of a layer, in their order.
            keyed: True where the backend draws, so that `submit` needs keys.
        """
        self.backend = backend
        self.keyed = keyed
        self._specs = {1: CircuitSpec(1, depth, entangle, rotations)}

    def spec(self, width: int) -> CircuitSpec:
        """Return the circuit of a block of `width` coordinates."""
        if width not in self._specs:
            self._specs[width] = replace(self._specs[1], n_qubits=width)
        return self._specs[width]

    def submit(self, theta_bn: Tensor, keys_b: Tensor | None = None) -> Pending:
        """Submit one circuit a block; see `Signal.submit`.

        Args:
            theta_bn: shape (b, n).
            keys_b: keys of the blocks' draws, shape (b,); None where `keyed` is False.

        Raises:
            CircuitError: the backend's, here or from the result.
        """
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
        return _PartlyFinite(s_bn, finite_b, self.backend.submit(spec, _angles(spec, theta_bn[finite_b]), "z", keys_b))


class _PartlyFinite:
    """Signals of which the blocks that are not finite stay NaN."""

    def __init__(self, s_bn: Tensor, finite_b: Tensor, pending: Pending) -> None:
        self._s_bn = s_bn
        self._finite_b = finite_b
        self._pending = pending

    def result(self) -> Tensor:
        self._s_bn[self._finite_b] = self._pending.result()
        return self._s_bn

    @property
    def busy_s(self) -> float | None:
        return busy_s(self._pending)


def circuit_angles(spec: CircuitSpec, theta_bn: Tensor) -> Tensor:
    """Return the angles of blocks, the same in every layer: float64, shape (b, d, n, r), radians.

    The first rotation takes a_di = -pi * theta_i, the second b_di = pi * theta_i (the paper's Ry and Rz); further ones
    go on with alternating signs.

    Args:
        spec: the circuit; its depth d and its r rotations are used.
        theta_bn: coordinates, shape (b, n).

    Example:
        >>> import torch
        >>> from qsgd_ray import CircuitSpec
        >>> from qsgd_ray.optimizer.signals import circuit_angles
        >>> circuit_angles(CircuitSpec(n_qubits=2, depth=1), torch.tensor([[0.0, 1.0]]))[0, 0, 1]
        tensor([-3.1416,  3.1416], dtype=torch.float64)
    """
    return _angles(spec, _float64(theta_bn))


def _angles(spec: CircuitSpec, theta_bn: Tensor) -> Tensor:
    batch, n = theta_bn.shape
    angles_b1nr = theta_bn.reshape(batch, 1, n, 1) * _signed_pi(len(spec.rotations))
    return angles_b1nr.expand(-1, spec.depth, -1, -1)


@cache
def _signed_pi(n_rotations: int) -> Tensor:
    return torch.tensor([math.pi if index % 2 else -math.pi for index in range(n_rotations)], dtype=torch.float64)


_CLOSED_FORMS: dict[str, type[ClosedForm]] = {
    "sine": _SineSignal,
    "zero": _ZeroSignal,
    "gradient": _GradientSignal,
    "random_sign": _RandomSignSignal,
    "shuffled": _ShuffledSignal,
}


def make_signal(perturbation: config.Perturbation, backend: CircuitBackend | None) -> Signal:
    """Return the signal of a perturbation's source.

    Args:
        perturbation: source, circuit, shots and noise; its fields are values, not spaces.
        backend: answers the circuits; None simulates them in this process. Closed forms don't use it.

    Raises:
        ValueError: source `sampled` or `noisy` with a backend that gives answers of one kind only.
        CircuitError: the source needs Aer, which is not installed.
    """
    source, depth, entangle = cast(str, perturbation.source), cast(int, perturbation.depth), perturbation.entangle
    if source in _CLOSED_FORMS:
        return _CLOSED_FORMS[source]()
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
    return _without_graph(theta_bn).to("cpu", torch.float64)


def _without_graph(theta_bn: Tensor) -> Tensor:
    """Return the coordinates for a signal. RuntimeError: autograd follows them, and a signal has no derivative."""
    if (torch.is_grad_enabled() and theta_bn.requires_grad) or has_tangent(theta_bn):
        raise RuntimeError("theta: got a derivative to follow; allowed: under torch.no_grad(), as a signal has none")
    return theta_bn.detach()
