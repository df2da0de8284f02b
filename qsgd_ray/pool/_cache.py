"""Exact answers by the content of their question: the least recently used go when they take too much memory.

A question is found by its circuit and its first angles, and is the same if all angles are, bit for bit. That takes less
than a digest of 128 KB, and almost always the first angles tell.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.pool._request import CircuitRequest

CACHE_BYTES = 2**26


class _Kept(NamedTuple):
    angles_bdnr: NDArray[np.float64]
    answer: NDArray[np.float64]
    n_bytes: int


class AnswerCache:
    """Questions, which nobody else may change, and answers, up to `CACHE_BYTES`; what comes out is a copy. `n_bytes`:
    what they take now."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()

    def get(self, asked: CircuitRequest) -> Tensor | None:
        """What was answered to these very circuits."""
        kept = self._kept.get(asked.key)
        if kept is None or not np.array_equal(kept.angles_bdnr.view(np.int64), asked.angles_bdnr.view(np.int64)):
            return None
        self._kept.move_to_end(asked.key)
        return torch.from_numpy(kept.answer.copy())

    def put(self, asked: CircuitRequest, answer: Tensor) -> None:
        """Another question that begins alike makes room."""
        key = asked.key
        if key in self._kept:
            self._forget(key)
        copied = answer.numpy().copy()  # in a step of training, Tensor.clone takes 30 us more
        n_bytes = asked.angles_bdnr.nbytes + copied.nbytes
        self._kept[key] = _Kept(asked.angles_bdnr, copied, n_bytes)
        self.n_bytes += n_bytes
        while self.n_bytes > CACHE_BYTES:
            self._forget(next(iter(self._kept)))

    def clear(self) -> None:
        """Nothing is kept any more."""
        self._kept.clear()
        self.n_bytes = 0

    def _forget(self, key: tuple[object, ...]) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self.n_bytes -= kept.n_bytes

    def __len__(self) -> int:
        return len(self._kept)
