"""A cache of exact answers by the content of their request; the least recently used make room.

A request is looked up by its description and its first angles, then compared bit for bit. That is quicker than a digest
of 128 KB, and the first angles almost always suffice.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsgd_ray.pool._request import CircuitRequest

_CACHE_BYTES = 2**26


class _Entry(NamedTuple):
    angles_bdnr: NDArray[np.float64]
    answer: NDArray[np.float64]
    n_bytes: int


class AnswerCache:
    """Answers by request, in `_CACHE_BYTES` at most. `n_bytes`: memory that requests and answers take now.

    The arrays of a request that is put in must not change afterwards. Answers are copied in and out.
    """

    def __init__(self) -> None:
        self.n_bytes = 0
        self._entries: OrderedDict[tuple[object, ...], _Entry] = OrderedDict()

    def get(self, request: CircuitRequest) -> Tensor | None:
        """Return a copy of the answer to exactly these circuits, or None."""
        entry = self._entries.get(request.cache_key)
        if entry is None or not np.array_equal(entry.angles_bdnr.view(np.int64), request.angles_bdnr.view(np.int64)):
            return None
        self._entries.move_to_end(request.cache_key)
        return torch.from_numpy(entry.answer.copy())

    def put(self, request: CircuitRequest, answer: Tensor) -> None:
        """Store a copy of the answer. It replaces another request of the same cache key."""
        key = request.cache_key
        if key in self._entries:
            self._remove(key)
        copied = answer.numpy().copy()  # in a step of training, Tensor.clone takes 30 us more
        n_bytes = request.angles_bdnr.nbytes + copied.nbytes
        self._entries[key] = _Entry(request.angles_bdnr, copied, n_bytes)
        self.n_bytes += n_bytes
        while self.n_bytes > _CACHE_BYTES:
            self._remove(next(iter(self._entries)))

    def clear(self) -> None:
        """Remove all answers."""
        self._entries.clear()
        self.n_bytes = 0

    def _remove(self, key: tuple[object, ...]) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self.n_bytes -= entry.n_bytes

    def __len__(self) -> int:
        return len(self._entries)
