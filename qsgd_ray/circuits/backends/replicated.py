"""One submission for all replicas of a training: rank 0 submits, and all ranks get its answer or its error."""

from __future__ import annotations

import traceback

import torch
import torch.distributed as dist
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import CircuitBackend, Pending, Sampling, SamplingBackend, busy_s
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError, CircuitsLost
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

# Rank 0 sends an error's position here, from 1; every other class is a subclass of the first.
_ERRORS = (CircuitError, CircuitsLost, CircuitMemoryError)


class ReplicatedBackend:
    """A backend that only rank 0 of a process group uses; the other ranks receive its answers.

    Every rank calls `submit` and `result` in the same order with the same shapes. Then all hold the bits that rank 0
    got, whatever `inner` is. Where rank 0 fails, at `submit` or at `result`, `result()` raises on every rank an error
    of the same class with rank 0's traceback, so no rank waits for an answer that will not come. Without
    torch.distributed it is `inner` for a world of one.

    Args:
        inner: the backend that rank 0 uses.
        group: the process group; None: the default one.

    Raises:
        CircuitError: from `result()`: rank 0 failed; CircuitsLost and CircuitMemoryError as such.
    """

    def __init__(self, inner: CircuitBackend, group: dist.ProcessGroup | None = None) -> None:
        self._inner = inner
        self._group = group

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        is_first = not dist.is_initialized() or dist.get_rank(self._group) == 0
        submission: Pending | Exception | None = None
        if is_first:
            try:
                submission = self._inner.submit(spec, angles_bdnr, readout, keys_b)
            except Exception as error:  # raised by result(), where the other ranks learn of it
                submission = error
        return _Replicated(submission, (angles_bdnr.shape[0], spec.answer_width(readout)), self._group)

    def sampled(self, sampling: Sampling) -> ReplicatedBackend:
        """Return a replicated backend that samples. CircuitError: `inner` does not sample."""
        if not isinstance(self._inner, SamplingBackend):
            raise CircuitError(f"circuits: got {type(self._inner).__name__}, which does not sample")
        return ReplicatedBackend(self._inner.sampled(sampling), self._group)


class _Replicated:
    """An answer to be broadcast. `submission`: what rank 0 got at submit; None on the other ranks."""

    def __init__(
        self, submission: Pending | Exception | None, shape: tuple[int, int], group: dist.ProcessGroup | None
    ) -> None:
        self._submission = submission
        self._shape = shape
        self._group = group
        self._outcome: Tensor | CircuitError | None = None
        self.busy_s: float | None = None  # known on rank 0 alone

    def result(self) -> Tensor:
        if self._outcome is None:
            submission = self._submission
            self._outcome = self._share(None if submission is None else _collect(submission, self._shape))
            if submission is not None and not isinstance(submission, Exception):
                self.busy_s = busy_s(submission)
            self._submission = None
        if isinstance(self._outcome, CircuitError):
            raise self._outcome
        return self._outcome

    def _share(self, outcome: Tensor | CircuitError | None) -> Tensor | CircuitError:
        """Broadcast rank 0's outcome, which is None on the other ranks."""
        if not dist.is_initialized():
            assert outcome is not None
            return outcome
        # One message: a flag (0: an answer, else a position in _ERRORS) in front of the values.
        batch, width = self._shape
        message = torch.zeros(1 + batch * width, dtype=torch.float64)
        if isinstance(outcome, Tensor):
            message[1:] = outcome.reshape(-1)
        elif outcome is not None:
            message[0] = max(number for number, kind in enumerate(_ERRORS, start=1) if isinstance(outcome, kind))
        if dist.get_backend(self._group) == "nccl":  # NCCL carries CUDA tensors only
            message = message.cuda()
        dist.broadcast(message, group=self._group, group_src=0)
        message = message.cpu()
        if message[0] == 0:
            return message[1:].view(batch, width)
        return self._share_error(_ERRORS[int(message[0]) - 1], outcome)

    def _share_error(self, kind: type[CircuitError], outcome: Tensor | CircuitError | None) -> CircuitError:
        """Broadcast the error's text: any rank may report the end of the group, so each must know what happened."""
        texts: list[str | None] = [None, None]
        if isinstance(outcome, CircuitError):
            texts = [str(outcome), "".join(traceback.format_exception(outcome))]
        dist.broadcast_object_list(texts, group=self._group, group_src=0)
        if isinstance(outcome, CircuitError):
            return outcome
        error = kind(texts[0])
        error.__cause__ = _OnRank0(str(texts[1]))
        return error


class _OnRank0(Exception):
    """The traceback of rank 0, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _collect(submission: Pending | Exception, shape: tuple[int, int]) -> Tensor | CircuitError:
    """Return the answer of `inner`, or its error: rank 0 must reach the broadcast either way."""
    try:
        if isinstance(submission, Exception):
            raise submission
        values = submission.result()
        if tuple(values.shape) != shape:
            raise CircuitError(f"circuits: got an answer of shape {tuple(values.shape)}; allowed: {shape}")
        return values.detach().to("cpu", torch.float64)
    except CircuitError as error:
        return error
    except Exception as error:
        failure = CircuitError(f"circuits failed on rank 0: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return failure
