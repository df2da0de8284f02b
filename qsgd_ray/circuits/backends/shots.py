"""Finite shots: means over sampled measurements of exactly simulated circuits.

The draws of a circuit depend on its probabilities and on (seed, key) alone, never on the batch around it, on chunks or
on the order of arrival: Philox is counter-based (Salmon et al., SC'11, doi:10.1145/2063384.2063405), so (seed, key)
names a stream by itself.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer, s = 2**n basis states.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import Answered, Pending, checked_angles
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.memory import require_memory
from qsgd_ray.circuits.plain_numbers import whole_number
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import probabilities
from qsgd_ray.config.circuit import Readout

# Memory for the probabilities of one chunk of the batch, in bytes (one circuit at least).
_CHUNK_BYTES = 2**25
# Streams of keys that the caller gave, and of keys that were counted here: they have no draws in common.
_GIVEN, _COUNTED = 0, 1


class ShotsBackend:
    """Exact probabilities, sampled during `submit`.

    With keys, the draws of a circuit depend on (seed, key) alone. Without, its key is its position in the running count
    of all circuits that this backend was given without keys: the same circuits draw anew at the next submission, and a
    new backend with the same seed repeats the same draws.

    Args:
        shots: measurements a circuit, >= 1.
        seed: seed of the draws, from 0 to 2**64 - 1.
        memory_bytes: memory that one circuit may take.

    Raises:
        ValueError: shots or a seed outside of their range.
        CircuitError: from `submit`: angles or keys of the wrong shape; angles that are not finite.
        CircuitMemoryError: from `submit`: one state does not fit.

    Example:
        >>> spec = CircuitSpec(1, depth=1)
        >>> z = ShotsBackend(shots=1000).submit(spec, torch.zeros(1, 1, 1, 2)).result()
        >>> bool(z.abs() < 0.2)  # exact: 0; the standard error is 0.03
        True
    """

    differentiable = False

    def __init__(self, shots: int, seed: int = 0, memory_bytes: int = 2**30) -> None:
        self.shots = checked_shots(shots)
        self.seed = checked_seed(seed)
        self.memory_bytes = whole_number("memory_bytes", memory_bytes, 0)
        self._keys = KeyCounter()

    def submit(
        self, spec: CircuitSpec, angles_bdnr: Tensor, readout: Readout = "z", keys_b: Tensor | None = None
    ) -> Pending:
        began = time.perf_counter()
        require_memory(spec.n_qubits, self.memory_bytes)
        angles_bdnr = checked_angles(spec, angles_bdnr)
        keys, stream = self._keys.next(angles_bdnr.shape[0], keys_b)
        answer = torch.empty(angles_bdnr.shape[0], spec.answer_width(readout), dtype=torch.float64)
        for part in parts(spec, angles_bdnr.shape[0]):
            counts_bs = draw_counts(_weights(spec, angles_bdnr[part]), self.shots, self.seed, keys[part], stream)
            answer[part] = readout_of(counts_bs, spec, readout).double() / self.shots
        return Answered(answer, time.perf_counter() - began)


class KeyCounter:
    """The keys of circuits: the caller's, or else a running count of the circuits."""

    def __init__(self) -> None:
        self._counted = 0

    def next(self, batch: int, keys_b: Tensor | None) -> tuple[NDArray[np.uint64], int]:
        """Return the keys of the next circuits, and the stream that they belong to.

        Args:
            batch: number of circuits.
            keys_b: int64, shape (b,): the caller's keys; None: count.

        Returns:
            uint64 of shape (b,), and the stream, as `generator` takes it.

        Raises:
            CircuitError: keys of another shape or dtype.
        """
        if keys_b is None:
            first, self._counted = self._counted, self._counted + batch
            return np.arange(first, first + batch, dtype=np.uint64), _COUNTED
        if tuple(keys_b.shape) != (batch,) or keys_b.dtype != torch.int64:
            raise CircuitError(f"keys: got {tuple(keys_b.shape)} {keys_b.dtype}; allowed: ({batch},) torch.int64")
        return keys_b.detach().cpu().contiguous().numpy().view(np.uint64), _GIVEN


def generator(seed: int, key: int, stream: int = _GIVEN) -> np.random.Generator:
    """Return the generator that (seed, key, stream) names.

    Args:
        seed: from 0 to 2**64 - 1.
        key: from 0 to 2**64 - 1.
        stream: 0 for keys that a caller gave, 1 for counted ones.

    Returns:
        A generator at its start.
    """
    words = np.array([seed, key], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words, counter=np.array([0, 0, 0, stream], dtype=np.uint64)))


def draw_counts(weights_bs: Tensor, shots: int, seed: int, keys: NDArray[np.uint64], stream: int) -> Tensor:
    """Sample measurements of the basis states of each circuit.

    Args:
        weights_bs: float64, shape (b, s): probabilities; rounding errors (below 0, sums near 1) are allowed for.
        shots: measurements a circuit, >= 1.
        seed: from 0 to 2**64 - 1.
        keys: uint64, shape (b,), of `KeyCounter.next`.
        stream: of `KeyCounter.next`.

    Returns:
        int64, shape (b, s): how often each state was measured; every row sums to `shots`.
    """
    counts_bs = np.empty(weights_bs.shape, dtype=np.int64)
    for row, (weights_s, key) in enumerate(zip(weights_bs.numpy(), keys.tolist(), strict=True)):
        counts_bs[row] = _draw(np.maximum(weights_s, 0.0), shots, generator(seed, key, stream))
    return torch.from_numpy(counts_bs)


def _draw(weights_s: NDArray[np.float64], shots: int, random: np.random.Generator) -> NDArray[np.int64]:
    # Rounding leaves sums near 1. A multinomial costs a binomial a state, an inverted distribution a search a shot; the
    # second is the quicker one below a quarter of a shot a state (measured 2026-11-22 for 2**1 to 2**20 states).
    if 4 * shots > len(weights_s):
        counts: NDArray[np.int64] = random.multinomial(shots, weights_s / weights_s.sum())
        return counts
    cumulated = np.cumsum(weights_s)
    # Sorted, the searches walk through memory in order. side="right": a state of weight 0 is never hit.
    hits = np.searchsorted(cumulated, np.sort(random.random(shots)) * cumulated[-1], side="right")  # nosec B311 # science
    return np.bincount(np.minimum(hits, np.flatnonzero(weights_s)[-1]), minlength=len(weights_s))


def parts(spec: CircuitSpec, batch: int, memory_bytes: int = _CHUNK_BYTES) -> list[slice]:
    """Cut a batch into chunks by the memory of their probabilities.

    Args:
        spec: the circuit.
        batch: number of circuits.
        memory_bytes: memory that the probabilities of a chunk may take; a chunk has one circuit at least.

    Returns:
        Slices of the batch, in order.
    """
    circuits = max(1, memory_bytes // (8 << spec.n_qubits))
    return [slice(start, start + circuits) for start in range(0, batch, circuits)]


def readout_of(weights_bs: Tensor, spec: CircuitSpec, readout: Readout) -> Tensor:
    """Read <Z_i>, or the weight of the first n states, from weights of the basis states.

    All operations are elementwise along the batch, so a circuit's bits do not depend on the others.

    Args:
        weights_bs: shape (b, s): probabilities, or counts.
        spec: the circuit.
        readout: "z" or "probability".

    Returns:
        Of the weights' dtype, shape (b, spec.answer_width(readout)); for counts, `shots` times the mean.
    """
    x_rsb = weights_bs.t()[None]
    if readout == "probability":
        return sum(x_rsb[0, 1 : spec.n_qubits], x_rsb[0, 0])[:, None]
    # Halve from the top qubit down. Rows: Z of the qubits that were halved, and last the plain sum.
    for _ in range(spec.n_qubits):
        low, high = x_rsb.chunk(2, 1)
        x_rsb = torch.cat((low[-1:] - high[-1:], low + high))
    return x_rsb[:-1, 0].t().contiguous()


def checked_shots(shots: int) -> int:
    """Return the shots. ValueError in one line: no whole number >= 1."""
    return whole_number("shots", shots, 1)


def checked_seed(seed: int) -> int:
    """Return the seed. ValueError in one line: no whole number that 64 bits hold."""
    return whole_number("seed", seed, 0, 2**64)


def _weights(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    with torch.inference_mode():
        return probabilities(spec, angles_bdnr).contiguous()
