"""Who answers circuits: one protocol, CircuitSpec and angles in, <Z_i> out; in process, or once for all replicas.

`submit` hands the circuits over and returns at once where it can; `result()` of what it returned waits for the answer.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import CHUNK_BYTES, expectations

# A gate reads one state and writes another, with half a state of scratch.
STATES_AT_ONCE = 2.5


class CircuitError(RuntimeError):
    """Circuits that could not be answered, told in one line."""


class CircuitsLost(CircuitError):
    """Whoever should have answered is gone or does not answer: nothing is wrong with the circuits."""


class CircuitMemoryError(CircuitError):
    """A state that does not fit."""


class Pending(Protocol):
    """An answer under way."""

    def result(self) -> Tensor:
        """Wait for it: (batch, n_qubits) float64 <Z_i> on the CPU. CircuitError: there is none."""
        ...


class CircuitBackend(Protocol):
    """Answers circuits."""

    def submit(self, spec: CircuitSpec, angles_bdn2: Tensor) -> Pending:
        """Ask for <Z_i> of each circuit; angles (batch, depth, n_qubits, 2) in radians. CircuitError: refused."""
        ...


class Answered:
    """A Pending whose answer is already there."""

    def __init__(self, answer: Tensor) -> None:
        self._answer = answer

    def result(self) -> Tensor:
        return self._answer


class TorchBackend:
    """Simulates in process, in float64 on the CPU, at submit.

    `memory_bytes`: what one circuit may take; wide batches are simulated in chunks far below it. CircuitError: angles
    of the wrong shape or not finite. CircuitMemoryError: one state does not fit.
    """

    def __init__(self, memory_bytes: int = 2**30) -> None:
        self.memory_bytes = memory_bytes

    def submit(self, spec: CircuitSpec, angles_bdn2: Tensor) -> Pending:
        try:
            spec.check_angles(angles_bdn2)
        except ValueError as error:
            raise CircuitError(str(error)) from None
        require_memory(spec.n_qubits, self.memory_bytes)
        with torch.inference_mode():
            angles_bdn2 = angles_bdn2.detach().to("cpu", torch.float64)
            # The sum of finite numbers may overflow, so it only says when to look closer.
            if not math.isfinite(angles_bdn2.sum()) and not angles_bdn2.isfinite().all():
                bad = int((~angles_bdn2.isfinite()).sum())
                raise CircuitError(f"angles: got {bad} of {angles_bdn2.numel()} not finite; allowed: finite radians")
            answer = expectations(spec, angles_bdn2, memory_bytes=min(self.memory_bytes, CHUNK_BYTES))
        return Answered(answer.clone())  # outside inference mode: a tensor like any other


class ReplicatedBackend:
    """One process asks, all processes hold the answer: rank 0 of `group` alone uses `inner`, the others wait.

    Every rank calls submit and result in the same order with the same shapes; then all hold the bits that rank 0 got,
    whatever `inner` is. Where rank 0 fails, at submit or at result, result() raises CircuitError on every rank, so
    nobody waits for an answer that will not come. Without torch.distributed it is `inner` for a world of one.
    """

    def __init__(self, inner: CircuitBackend, group: dist.ProcessGroup | None = None) -> None:
        self._inner = inner
        self._group = group

    def submit(self, spec: CircuitSpec, angles_bdn2: Tensor) -> Pending:
        asks = not dist.is_initialized() or dist.get_rank(self._group) == 0
        answer: Pending | Exception | None = None
        if asks:
            try:
                answer = self._inner.submit(spec, angles_bdn2)
            except Exception as error:  # kept for result(), where the other ranks hear of it
                answer = error
        return _Replicated(answer, (angles_bdn2.shape[0], spec.n_qubits), self._group)


class _Replicated:
    """`answer`: what rank 0 got at submit; None on the other ranks."""

    def __init__(
        self, answer: Pending | Exception | None, shape: tuple[int, int], group: dist.ProcessGroup | None
    ) -> None:
        self._answer = answer
        self._shape = shape
        self._group = group
        self._outcome: Tensor | CircuitError | None = None

    def result(self) -> Tensor:
        if self._outcome is None:
            own = None if self._answer is None else _collect(self._answer, self._shape)
            self._outcome = self._share(own)
            self._answer = None
        if isinstance(self._outcome, CircuitError):
            raise self._outcome
        return self._outcome

    def _share(self, own: Tensor | CircuitError | None) -> Tensor | CircuitError:
        if not dist.is_initialized():
            assert own is not None
            return own
        # One message: a flag (1: rank 0 failed, 2: it lost its circuits) in front of the values.
        batch, n_qubits = self._shape
        message = torch.zeros(1 + batch * n_qubits, dtype=torch.float64)
        if isinstance(own, Tensor):
            message[1:] = own.reshape(-1)
        elif own is not None:
            message[0] = 2 if isinstance(own, CircuitsLost) else 1
        if dist.get_backend(self._group) == "nccl":  # NCCL carries CUDA tensors only
            message = message.cuda()
        dist.broadcast(message, group=self._group, group_src=0)
        message = message.cpu()
        if message[0] == 0:
            return message[1:].view(batch, n_qubits)
        if isinstance(own, CircuitError):
            return own
        kind = CircuitsLost if message[0] == 2 else CircuitError
        return kind("rank 0's circuits failed; its log says why")


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


def statevector_bytes(n_qubits: int, dtype: torch.dtype = torch.complex128) -> int:
    """Bytes of one state of `n_qubits` qubits in `dtype`."""
    return dtype.itemsize << n_qubits


def require_memory(n_qubits: int, available_bytes: int) -> None:
    """CircuitMemoryError unless one circuit of `n_qubits` qubits can be simulated in `available_bytes`.

    Needed are 2.5 states of 2**n_qubits complex128 numbers (measured: tests/circuits/test_backends.py).
    """
    needed = _needed_bytes(n_qubits)
    if needed <= available_bytes:
        return
    largest = 0
    while _needed_bytes(largest + 1) <= available_bytes:
        largest += 1
    raise CircuitMemoryError(
        f"n_qubits: got {n_qubits}, a simulation that needs {needed:,} bytes with {available_bytes:,} there; "
        f"allowed: at most {largest}"
    )


def _needed_bytes(n_qubits: int) -> int:
    return int(STATES_AT_ONCE * statevector_bytes(n_qubits))
