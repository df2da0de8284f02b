"""Who answers circuits: one protocol, CircuitSpec and angles in, numbers out.

`submit` hands the circuits over and returns at once where it can; `result()` of what it returned waits for the answer.
Those who answer: in_process.py, circuits/aer/backend.py, shots.py, estimator.py, and circuits/select/auto.py, which
chooses. replicated.py asks once for all replicas of a training.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError, CircuitsLost
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import NoiseSettings, Readout

__all__ = [
    "Answered",
    "CircuitBackend",
    "CircuitError",
    "CircuitMemoryError",
    "CircuitsLost",
    "Pending",
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
