"""Circuits in the form in which they travel to an actor: numpy arrays and a description.

Letters of shapes: b circuits, d layers, n qubits, r rotations a layer.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.circuits.backends.protocol import Sampling
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Readout

# Angles that enter the cache's key; comparing all of them is left to the cache.
_ANGLES_IN_KEY = 8


@dataclass(frozen=True)
class CircuitRequest:
    """A request for the answers of a batch of circuits, or of a part of one.

    Attributes:
        spec: the circuit that all of them share.
        angles_bdnr: float64, shape (b, d, n, r), in C order; radians.
        readout: "z" or "probability", as `CircuitBackend.submit` takes it.
        keys_b: int64, shape (b,): names of the circuits' draws; None: the actor's engine counts.
        sampling: shots and noise; None: exact answers.
        batch_size: circuits of the whole batch, of which these may be a part. The engine is chosen by it, so that the
            bits do not depend on the cut.
    """

    spec: CircuitSpec
    angles_bdnr: NDArray[np.float64]
    readout: Readout
    keys_b: NDArray[np.int64] | None
    sampling: Sampling | None
    batch_size: int

    @cached_property
    def kind(self) -> bytes:
        """Everything but the numbers, as JSON. Equal requests share one object, so that it is hashed only once."""
        return _kind(self.spec, self.readout, self.sampling, self.keys_b is not None)

    @cached_property
    def cache_key(self) -> tuple[bytes, int, bytes]:
        """The kind, the number of circuits and the first angles: enough to tell almost all requests apart."""
        return self.kind, len(self.angles_bdnr), self.angles_bdnr.reshape(-1)[:_ANGLES_IN_KEY].tobytes()

    def split(self, n: int) -> list[CircuitRequest]:
        """Cut the request into n parts whose sizes differ by one circuit at most."""
        if n == 1:
            return [self]
        edges = [len(self.angles_bdnr) * i // n for i in range(n + 1)]
        return [
            replace(
                self,
                angles_bdnr=self.angles_bdnr[start:stop],
                keys_b=None if self.keys_b is None else self.keys_b[start:stop],
            )
            for start, stop in itertools.pairwise(edges)
        ]


@lru_cache(maxsize=256)
def _kind(spec: CircuitSpec, readout: str, sampling: Sampling | None, has_keys: bool) -> bytes:
    noise = None if sampling is None or sampling.noise is None else sampling.noise.model_dump()
    drawn = None if sampling is None else {"shots": sampling.shots, "noise": noise}
    return json.dumps({"spec": asdict(spec), "readout": readout, "sampling": drawn, "has_keys": has_keys}).encode()
