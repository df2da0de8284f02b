"""One asking for all replicas of a training: rank 0 asks, and all hold its answer, or why there is none."""

from __future__ import annotations

import traceback

import torch
import torch.distributed as dist
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import CircuitBackend, Pending, Sampling, SamplingBackend, busy_s
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError, CircuitsLost
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

# What rank 0 may have run into, by the number it tells the others; the first of them is every one.
KINDS = (CircuitError, CircuitsLost, CircuitMemoryError)


class ReplicatedBackend:
    """One process asks, all processes hold the answer: rank 0 of `group` alone uses `inner`, the others wait.

    Every rank calls submit and result in the same order with the same shapes; then all hold the bits that rank 0 got,
    whatever `inner` is. Where rank 0 fails, at submit or at result, result() raises CircuitError on every rank with
    rank 0's traceback, so nobody waits for an answer that will not come. Without torch.distributed it is `inner` for a
    world of one.
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
        # One message: a flag (0: answered, else which of KINDS) in front of the values.
        batch, width = self._shape
        message = torch.zeros(1 + batch * width, dtype=torch.float64)
        if isinstance(own, Tensor):
            message[1:] = own.reshape(-1)
        elif own is not None:
            message[0] = max(number for number, kind in enumerate(KINDS, start=1) if isinstance(own, kind))
        if dist.get_backend(self._group) == "nccl":  # NCCL carries CUDA tensors only
            message = message.cuda()
        dist.broadcast(message, group=self._group, group_src=0)
        message = message.cpu()
        if message[0] == 0:
            return message[1:].view(batch, width)
        return self._share_failure(KINDS[int(message[0]) - 1], own)

    def _share_failure(self, kind: type[CircuitError], own: Tensor | CircuitError | None) -> CircuitError:
        """A group's end may be told by any of its ranks, so each must be able to say what happened on rank 0."""
        told: list[str | None] = [None, None]
        if isinstance(own, CircuitError):
            told = [str(own), "".join(traceback.format_exception(own))]
        dist.broadcast_object_list(told, group=self._group, group_src=0)
        if isinstance(own, CircuitError):
            return own
        error = kind(told[0])
        error.__cause__ = _OnRank0(str(told[1]))
        return error


class _OnRank0(Exception):
    """The traceback of rank 0, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


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
