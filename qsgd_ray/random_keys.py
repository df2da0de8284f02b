"""Random numbers that are named, not drawn in turn: (seed, step, coordinate) in, the same bits out on every machine.

A key is what SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014) makes of its parts, one after the other; a
block's numbers are the next values of that generator. So they do not depend on ranks, on order or on what else was
drawn, and a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[np.uint64]
GOLDEN = 0x9E3779B97F4A7C15


def named_seed(*purpose: str | int) -> int:
    """63 bits for a generator: the same for the same purpose in every process, unrelated for any other."""
    return int.from_bytes(hashlib.sha256(repr(purpose).encode()).digest()[:8], "big") >> 1


def keys(seed: int, step: int, starts_b: NDArray[np.int64]) -> Tensor:
    """(blocks,) int64: what names the draws of a step of the blocks that start at these coordinates of the model."""
    named = _mixed(_mixed(np.array([seed % 2**64], np.uint64)) + np.uint64(step % 2**64))
    return torch.from_numpy(_mixed(named + starts_b.astype(np.uint64)).view(np.int64))


def words(keys_b: Tensor, n: int) -> Words:
    """n random 64-bit words for each key: (blocks, n) uint64."""
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return _mixed(keys_b.cpu().numpy().view(np.uint64)[:, None] + steps)


def _mixed(x: Words) -> Words:
    x = x + np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
