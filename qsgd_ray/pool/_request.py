"""Circuits as they travel to an actor: numpy arrays, and what is asked of them."""

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

FIRST = 8


@dataclass(frozen=True)
class CircuitRequest:
    """As `CircuitBackend.submit` takes them; `of`: how many circuits these are a part of."""

    spec: CircuitSpec
    angles_bdnr: NDArray[np.float64]
    readout: Readout
    keys_b: NDArray[np.int64] | None
    sampling: Sampling | None
    of: int

    @cached_property
    def kind(self) -> bytes:
        """What is asked, whatever the angles, in JSON; the same object for all alike, so that it is hashed once."""
        return _kind(self.spec, self.readout, self.sampling, self.keys_b is not None)

    @cached_property
    def key(self) -> tuple[bytes, int, bytes]:
        """What tells this question from most others at a glance: its kind, how many they are and its first angles."""
        return self.kind, len(self.angles_bdnr), self.angles_bdnr.reshape(-1)[:FIRST].tobytes()

    def parts(self, n: int) -> list[CircuitRequest]:
        """In n parts that differ by one circuit at most."""
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
