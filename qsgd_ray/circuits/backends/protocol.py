"""The protocol of circuit backends: a CircuitSpec and angles in, one row of numbers a circuit out.

`submit` hands circuits over and returns at once where it can; `result()` of what it returned waits for the answer. The
implementations: in_process.py, shots.py, estimator.py, circuits/aer/backend.py; circuits/select/auto.py chooses one of
them, pool/backend.py sends circuits to Ray actors, and replicated.py asks once for all replicas of a training.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import NoiseSettings, Readout


class Pending(Protocol):
    """An answer under way.

    A backend that knows how long its engine worked says so in an attribute `busy_s`, in seconds (see `busy_s`).
    """

    def result(self) -> Tensor:
        """Wait for the answer: float64, shape (b, spec.answer_width(readout)), on the CPU. CircuitError: it failed."""
        ...


class CircuitBackend(Protocol):
    """Everything that answers circuits: a simulator, a pool of actors, a QPU."""

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        """Hand circuits over to be answered.

        Args:
            spec: the circuit that all of them share.
            angles_bdnr: any real dtype and device, shape (b, d, n, r); radians, finite.
            readout: "z", every <Z_i>: n numbers a circuit in [-1, 1]; or "probability", the weight of the first n basis
                states: one number in [0, 1].
            keys_b: int64, shape (b,): names of the circuits' draws (study, trial, step, block), so that a key gives the
                same numbers in any batch. None: a sampling backend counts. Exact backends do not read them.

        Returns:
            The pending answer.

        Raises:
            CircuitError: the backend cannot answer these circuits.
        """
        ...


class Sampling(NamedTuple):
    """The way in which a backend answers: sampled or exact, with or without noise.

    Attributes:
        shots: measurements a circuit, >= 1; None: exact answers.
        noise: noise settings; None: no noise.
    """

    shots: int | None
    noise: NoiseSettings | None


@runtime_checkable
class SamplingBackend(CircuitBackend, Protocol):
    """A backend that can also sample, or simulate noise.

    A perturbation whose source is `sampled` or `noisy` needs one. There are three: `AutoBackend`, `PoolBackend` and
    `ReplicatedBackend`. isinstance looks for the methods `submit` and `sampled` alone, so a `ReplicatedBackend`
    counts whatever it has inside.

    Example:
        >>> from qsgd_ray.circuits.select.auto import AutoBackend
        >>> isinstance(AutoBackend(), SamplingBackend)
        True
        >>> spec = CircuitSpec(1, depth=1)
        >>> sampling = AutoBackend().sampled(Sampling(shots=1000, noise=None))
        >>> bool(sampling.submit(spec, torch.zeros(1, 1, 1, 2)).result().abs() < 0.2)  # exact: 0; standard error 0.03
        True
    """

    def sampled(self, sampling: Sampling) -> CircuitBackend:
        """Return a backend on the same machines that answers so; this one stays as it is.

        Args:
            sampling: shots and noise of the answers, in place of this backend's own.

        Returns:
            The other backend. Its draws follow the keys that its `submit` gets, as of `CircuitBackend.submit`.

        Raises:
            CircuitError: something that it needs is missing: Aer for noise, or a backend inside that samples. A pool
                cannot know here; then `result()` of an answer raises it.
        """
        ...


def busy_s(pending: Pending) -> float | None:
    """Return the seconds that engines worked on an answer that has come; None where the backend does not say."""
    seconds: float | None = getattr(pending, "busy_s", None)
    return seconds


class Answered:
    """A `Pending` whose answer is there already. `busy_s`: seconds that an engine worked on it; None: unknown."""

    def __init__(self, answer: Tensor, busy_s: float | None = None) -> None:
        self._answer = answer
        self.busy_s = busy_s

    def result(self) -> Tensor:
        """Return the answer."""
        return self._answer


def checked_angles(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    """Return the angles as backends compute with them, after a check.

    Args:
        spec: the circuit.
        angles_bdnr: any real dtype and device, shape (b, d, n, r); radians.

    Returns:
        float64 on the CPU, detached, of the same shape.

    Raises:
        CircuitError: angles of another shape, not of real floats, or not finite.
    """
    try:
        spec.check_angles(angles_bdnr)
    except ValueError as error:
        raise CircuitError(str(error)) from None
    angles_bdnr = angles_bdnr.detach().to("cpu", torch.float64)
    # The sum of finite numbers may overflow, so it only says when to look closer.
    if not math.isfinite(angles_bdnr.sum()) and not angles_bdnr.isfinite().all():
        n_bad = int((~angles_bdnr.isfinite()).sum())
        raise CircuitError(f"angles: got {n_bad} of {angles_bdnr.numel()} not finite; allowed: finite radians")
    return angles_bdnr
