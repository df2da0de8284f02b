"""Finite shots: circuits and the keys of their draws in; counts, or means over so many measurements, out.

What a circuit draws depends on (seed, its key) and its probabilities alone, never on the batch around it, on chunks or
on the order of arrival: Philox is counter-based (Salmon et al., SC'11), so (seed, key) names a stream by itself.
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
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import probabilities
from qsgd_ray.config.circuit import Readout

# Memory for the weights of one chunk of the batch, in bytes (one circuit at least).
WEIGHTS_BYTES = 2**25
# Streams of keys that the caller gave, and of keys that were counted here: they never meet.
GIVEN, COUNTED = 0, 1


class ShotsBackend:
    """Samples exact probabilities, `shots` measurements a circuit, in process and at submit.

    With `keys_b`, a circuit's draws depend on (seed, key) alone. Without, its key is its position in the running count
    of all circuits that this backend was asked without keys: asking again draws again, and a new backend with the same
    seed repeats the same draws. `memory_bytes`: what one circuit may take. ValueError: shots or a seed that are none.
    CircuitError: angles or keys of the wrong shape, angles not finite. CircuitMemoryError: one state does not fit.
    """

    differentiable = False

    def __init__(self, shots: int, seed: int = 0, memory_bytes: int = 2**30) -> None:
        self.shots = checked_shots(shots)
        self.seed = checked_seed(seed)
        self.memory_bytes = memory_bytes
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


def sample_counts(
    spec: CircuitSpec, angles_bdnr: Tensor, shots: int, seed: int = 0, keys_b: Tensor | None = None
) -> Tensor:
    """How often each basis state was measured: (batch, 2**n_qubits) int64, every row summing to `shots`.

    `angles_bdnr`: radians. `keys_b`: (batch,) int64, what names each circuit's draws; None: its position in the batch.
    ValueError: shots or a seed that are none. CircuitError: angles or keys of the wrong shape, angles not finite.
    """
    shots, seed = checked_shots(shots), checked_seed(seed)
    angles_bdnr = checked_angles(spec, angles_bdnr)
    keys, stream = KeyCounter().next(angles_bdnr.shape[0], keys_b)
    counts_bs = torch.empty(angles_bdnr.shape[0], 1 << spec.n_qubits, dtype=torch.int64)
    for part in parts(spec, angles_bdnr.shape[0]):
        counts_bs[part] = draw_counts(_weights(spec, angles_bdnr[part]), shots, seed, keys[part], stream)
    return counts_bs


class KeyCounter:
    """Names the draws of circuits: by the caller's keys, or by counting."""

    def __init__(self) -> None:
        self.counted = 0

    def next(self, batch: int, keys_b: Tensor | None) -> tuple[NDArray[np.uint64], int]:
        """One key a circuit, and the stream that they belong to. CircuitError: keys that are not (batch,) int64."""
        if keys_b is None:
            first, self.counted = self.counted, self.counted + batch
            return np.arange(first, first + batch, dtype=np.uint64), COUNTED
        if tuple(keys_b.shape) != (batch,) or keys_b.dtype != torch.int64:
            raise CircuitError(f"keys: got {tuple(keys_b.shape)} {keys_b.dtype}; allowed: ({batch},) torch.int64")
        return keys_b.detach().cpu().contiguous().numpy().view(np.uint64), GIVEN


def generator(seed: int, key: int, stream: int = GIVEN) -> np.random.Generator:
    """The random numbers that (seed, key) names."""
    words = np.array([seed, key], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words, counter=np.array([0, 0, 0, stream], dtype=np.uint64)))


def draw_counts(weights_bs: Tensor, shots: int, seed: int, keys: NDArray[np.uint64], stream: int) -> Tensor:
    """(batch, states) int64: `shots` measurements of each row of probabilities, drawn by that row's key."""
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
    hits = np.searchsorted(cumulated, np.sort(random.random(shots)) * cumulated[-1], side="right")
    return np.bincount(np.minimum(hits, np.flatnonzero(weights_s)[-1]), minlength=len(weights_s))


def parts(spec: CircuitSpec, batch: int, memory_bytes: int = WEIGHTS_BYTES) -> list[slice]:
    """The batch in chunks whose weights take `memory_bytes` at most (one circuit at least)."""
    circuits = max(1, memory_bytes // (8 << spec.n_qubits))
    return [slice(start, start + circuits) for start in range(0, batch, circuits)]


def readout_of(weights_bs: Tensor, spec: CircuitSpec, readout: Readout) -> Tensor:
    """What `readout` makes of weights of the basis states, probabilities or counts alike: (batch, answer width).

    Elementwise along the batch, so that a circuit's bits do not depend on the others'.
    """
    x_rsb = weights_bs.t()[None]
    if readout == "probability":
        return sum(x_rsb[0, 1 : spec.n_qubits], x_rsb[0, 0])[:, None]
    # Halve from the top qubit down. Rows: Z of the qubits already halved, and last the plain sum.
    for _ in range(spec.n_qubits):
        low, high = x_rsb.chunk(2, 1)
        x_rsb = torch.cat((low[-1:] - high[-1:], low + high))
    return x_rsb[:-1, 0].t().contiguous()


def checked_shots(shots: int) -> int:
    """ValueError in one line unless this is a whole number >= 1."""
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise ValueError(f"shots: got {shots!r}; allowed: a whole number >= 1")
    return shots


def checked_seed(seed: int) -> int:
    """ValueError in one line unless this is a whole number that 64 bits hold."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: got {seed!r}; allowed: a whole number from 0 to 2**64 - 1")
    return seed


def _weights(spec: CircuitSpec, angles_bdnr: Tensor) -> Tensor:
    with torch.inference_mode():
        return probabilities(spec, angles_bdnr).contiguous()
