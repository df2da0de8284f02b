"""Who answers circuits: one protocol, CircuitSpec and angles in, numbers out; and one asking for all replicas.

`submit` hands the circuits over and returns at once where it can; `result()` of what it returned waits for the answer.
Those who answer: in_process.py, aer.py, shots.py, estimator.py, and auto.py, which chooses.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError, CircuitsLost
from qsgd_ray.circuits.kinds import Readout
from qsgd_ray.circuits.noise_settings import NoiseSettings
from qsgd_ray.circuits.spec import CircuitSpec

__all__ = [
    "Answered",
    "CircuitBackend",
    "CircuitError",
    "CircuitMemoryError",
    "CircuitsLost",
    "Pending",
    "ReplicatedBackend",
    "Sampling",
    "SamplingBackend",
    "busy_s",
    "checked_angles",
]


class Pending(Protocol):
    """An answer under way."""

    def result(self) -> Tensor:
        """Wait for it: (batch, spec.answer_width(readout)) float64 on the CPU. CircuitError: there is none."""
        ...


class CircuitBackend(Protocol):
    """Answers circuits."""

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        """Ask for `readout` of each circuit: every <Z_i>, or the weight of the first n_qubits basis states.

        `angles_bdnr`: radians, of the shape that `spec` says. `keys_b`: (batch,) int64, what names each circuit's draws
        (study, trial, step, block) where they are sampled; exact backends do not look at it. CircuitError: refused.
        """
        ...


class Sampling(NamedTuple):
    """So many measurements a circuit, or exact where `shots` is None; under `noise` where there is some."""

    shots: int | None
    noise: NoiseSettings | None


@runtime_checkable
class SamplingBackend(CircuitBackend, Protocol):
    """Can also answer by measurements, or under noise."""

    def sampled(self, sampling: Sampling) -> CircuitBackend:
        """The backend that answers so, on the same machines. CircuitError: what that needs is not there."""
        ...


def busy_s(pending: Pending) -> float | None:
    """Seconds that an engine worked on an answer that has arrived; None where its backend does not tell."""
    told: float | None = getattr(pending, "busy_s", None)
    return told


class Answered:
    """A Pending whose answer is already there. `busy_s`: how long an engine worked on it."""

    def __init__(self, answer: Tensor, busy_s: float | None = None) -> None:
        self._answer = answer
        self.busy_s = busy_s

    def result(self) -> Tensor:
        return self._answer


def checked_angles(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """The angles in float64 on the CPU, detached. CircuitError: of the wrong shape, no real floats, or not finite."""
    try:
        spec.check_angles(angles_bdnr)
    except ValueError as error:
        raise CircuitError(str(error)) from None
    angles_bdnr = angles_bdnr.detach().to("cpu", torch.float64)
    # The sum of finite numbers may overflow, so it only says when to look closer.
    if not math.isfinite(angles_bdnr.sum()) and not angles_bdnr.isfinite().all():
        bad = int((~angles_bdnr.isfinite()).sum())
        raise CircuitError(f"angles: got {bad} of {angles_bdnr.numel()} not finite; allowed: finite radians")
    return angles_bdnr


class ReplicatedBackend:
    """One process asks, all processes hold the answer: rank 0 of `group` alone uses `inner`, the others wait.

    Every rank calls submit and result in the same order with the same shapes; then all hold the bits that rank 0 got,
    whatever `inner` is. Where rank 0 fails, at submit or at result, result() raises CircuitError on every rank, so
    nobody waits for an answer that will not come. Without torch.distributed it is `inner` for a world of one.
    """

    def __init__(self, inner: CircuitBackend, group: dist.ProcessGroup | None = None) -> None:
        self._inner = inner
        self._group = group

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        asks = not dist.is_initialized() or dist.get_rank(self._group) == 0
        answer: Pending | Exception | None = None
        if asks:
            try:
                answer = self._inner.submit(spec, angles_bdnr, readout, keys_b)
            except Exception as error:  # kept for result(), where the other ranks hear of it
                answer = error
        return _Replicated(answer, (angles_bdnr.shape[0], spec.answer_width(readout)), self._group)

    def sampled(self, sampling: Sampling) -> ReplicatedBackend:
        """As `SamplingBackend`. CircuitError: `inner` cannot."""
        if not isinstance(self._inner, SamplingBackend):
            raise CircuitError(f"circuits: got {type(self._inner).__name__}, which does not sample")
        return ReplicatedBackend(self._inner.sampled(sampling), self._group)


class _Replicated:
    """`answer`: what rank 0 got at submit; None on the other ranks."""

    def __init__(
        self, answer: Pending | Exception | None, shape: tuple[int, int], group: dist.ProcessGroup | None
    ) -> None:
        self._answer = answer
        self._shape = shape
        self._group = group
        self._outcome: Tensor | CircuitError | None = None
        self.busy_s: float | None = None  # told on rank 0 alone

    def result(self) -> Tensor:
        if self._outcome is None:
            own = None if self._answer is None else _collect(self._answer, self._shape)
            self._outcome = self._share(own)
            self.busy_s = _told_by(self._answer)
            self._answer = None
        if isinstance(self._outcome, CircuitError):
            raise self._outcome
        return self._outcome

    def _share(self, own: Tensor | CircuitError | None) -> Tensor | CircuitError:
        if not dist.is_initialized():
            assert own is not None
            return own
        # One message: a flag (1: rank 0 failed, 2: it lost its circuits) in front of the values.
        batch, width = self._shape
        message = torch.zeros(1 + batch * width, dtype=torch.float64)
        if isinstance(own, Tensor):
            message[1:] = own.reshape(-1)
        elif own is not None:
            message[0] = 2 if isinstance(own, CircuitsLost) else 1
        if dist.get_backend(self._group) == "nccl":  # NCCL carries CUDA tensors only
            message = message.cuda()
        dist.broadcast(message, group=self._group, group_src=0)
        message = message.cpu()
        if message[0] == 0:
            return message[1:].view(batch, width)
        if isinstance(own, CircuitError):
            return own
        kind = CircuitsLost if message[0] == 2 else CircuitError
        return kind("rank 0's circuits failed; its log says why")


def _told_by(answer: Pending | Exception | None) -> float | None:
    return None if answer is None or isinstance(answer, Exception) else busy_s(answer)


def _collect(answer: Pending | Exception, shape: tuple[int, int]) -> Tensor | CircuitError:
    """What `inner` answered, or why it did not: rank 0 must reach the broadcast either way."""
    try:
        if isinstance(answer, Exception):
            raise answer
        values = answer.result()
        if tuple(values.shape) != shape:
            raise CircuitError(f"circuits: got an answer of shape {tuple(values.shape)}; allowed: {shape}")
        return values.detach().to("cpu", torch.float64)
    except CircuitError as error:
        return error
    except Exception as error:
        told = CircuitError(f"circuits failed on rank 0: {type(error).__name__}: {error}")
        told.__cause__ = error
        return told
