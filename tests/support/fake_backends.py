"""Small real backends for tests: one counts, one fails, one answers late, one answers with a given tensor."""

from __future__ import annotations

import threading
import time

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.backends.protocol import Pending
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout


class CountingBackend:
    """A TorchBackend that records the circuits it was given, in `submitted`."""

    def __init__(self) -> None:
        self.submitted: list[tuple[CircuitSpec, Tensor]] = []
        self._inner = TorchBackend()

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        self.submitted.append((spec, angles_bdnr.clone()))
        return self._inner.submit(spec, angles_bdnr, readout, keys_b)


class FlakyBackend:
    """Fails with `error` on the submission with this number (from 1), at submit or at result."""

    def __init__(self, fail_on: int, at: str = "submit", error: Exception | None = None) -> None:
        self.submissions = 0
        self._fail_on = fail_on
        self._at = at
        self._error = error or CircuitError(f"submission {fail_on} failed")
        self._inner = TorchBackend()

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        self.submissions += 1
        if self.submissions != self._fail_on:
            return self._inner.submit(spec, angles_bdnr, readout, keys_b)
        if self._at == "submit":
            raise self._error
        return FailedPending(self._error)


class FailedPending:
    """A pending answer that raises `error`."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def result(self) -> Tensor:
        raise self._error


class LateBackend:
    """Answers on a thread after `delay_s`; its Pendings hold a thread, so they can be neither pickled nor copied."""

    def __init__(self, delay_s: float = 0.002) -> None:
        self.submissions = 0
        self._delay_s = delay_s

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        self.submissions += 1
        return _LatePending(spec, angles_bdnr.clone(), readout, self._delay_s)


class _LatePending:
    def __init__(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout, delay_s: float) -> None:
        self._answer: Tensor | None = None
        self._thread = threading.Thread(target=self._work, args=(spec, angles_bdnr, readout, delay_s))
        self._thread.start()

    def _work(self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout, delay_s: float) -> None:
        torch.set_num_threads(1)
        time.sleep(delay_s)
        self._answer = TorchBackend().submit(spec, angles_bdnr, readout).result()

    def result(self) -> Tensor:
        self._thread.join()
        assert self._answer is not None
        return self._answer


class AnswersWith:
    """Answers every submission with this tensor."""

    def __init__(self, answer: Tensor) -> None:
        self._answer = answer

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        return self

    def result(self) -> Tensor:
        return self._answer
