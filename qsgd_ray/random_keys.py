"""Keyed random numbers: a draw is named by its purpose, and the same name gives the same bits on every machine.

Nothing here depends on ranks, on the order of draws or on earlier ones, so a resumed run draws the numbers that an
uninterrupted one would have drawn. There are two kinds of names:

- Words and whole numbers, such as `("search", 7, "adamw")`, are hashed by SHA-256 to the seed of a generator.
- (seed, step, coordinate), millions a run, are hashed by SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014,
  doi:10.1145/2660193.2660195): a part is added, the sum is mixed, and so on. The random words of a key are the second,
  third and further values of the SplitMix64 generator whose state is that key.

Letters of shapes: b blocks or circuits, one key each.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_Words = NDArray[np.uint64]
_GOLDEN_RATIO = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: the step of SplitMix64's state


def named_seed(*purpose: str | int) -> int:
    """Return the seed of a generator for one purpose.

    The same purpose gives the same seed in every process. Seeds of different purposes are unrelated.

    Args:
        purpose: words and numbers that name the draw, in order.

    Returns:
        A whole number of 63 bits, as torch's generators take it.

    Example:
        >>> named_seed("order of training", 7, 0) == named_seed("order of training", 7, 0)
        True
        >>> named_seed("order of training", 7, 0) == named_seed("order of training", 7, 1)
        False
    """
    return text_seed(repr(purpose))


def named_entropy(*purpose: str | int) -> int:
    """Return 256 bits of entropy for one purpose; its upper 63 bits are `named_seed`.

    Args:
        purpose: words and numbers that name the draw, in order.

    Returns:
        A whole number of 256 bits, as numpy's `default_rng` takes it.
    """
    return _sha256(repr(purpose))


def text_seed(text: str) -> int:
    """Return the seed of a generator that a text names: its SHA-256, cut to the upper 63 bits."""
    return _sha256(text) >> 193


def block_keys(seed: int, step: int, starts_b: NDArray[np.int64]) -> Tensor:
    """Return the keys of one step's draws, one for each block of coordinates.

    Args:
        seed: seed of the optimizer; its lower 64 bits count.
        step: number of the step, from 0; its lower 64 bits count.
        starts_b: int64, shape (b,): the coordinate of the model at which each block starts.

    Returns:
        int64, shape (b,), on the CPU.
    """
    step_key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(step % 2**64))
    return torch.from_numpy(_mix(step_key + starts_b.astype(np.uint64)).view(np.int64))


def derived_keys(keys_b: Tensor, n: int) -> Tensor:
    """Return `n` keys for each key: the hash of the key and an index from 1 to n.

    Among a billion derived keys, two are equal with a probability of about 3 % (the birthday bound of 64 bits).

    Args:
        keys_b: int64, shape (b,), on any device.
        n: number of keys to derive from each.

    Returns:
        int64, shape (b * n,), on the CPU: the keys derived from the first key, then those from the second, and so on.
    """
    key = keys_b.detach().cpu().contiguous().numpy().view(np.uint64)
    index = np.arange(1, n + 1, dtype=np.uint64)
    return torch.from_numpy(_mix(_mix(key)[:, None] + index).reshape(-1).view(np.int64))


def random_words(keys_b: Tensor, n: int) -> NDArray[np.uint64]:
    """Return `n` random words of 64 bits for each key.

    Args:
        keys_b: int64, shape (b,), on any device.
        n: number of words a key.

    Returns:
        uint64, shape (b, n). The first words of a key do not depend on n.
    """
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN_RATIO)
    return _mix(keys_b.cpu().numpy().view(np.uint64)[:, None] + steps)


def _sha256(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _mix(x: _Words) -> _Words:
    """Advance SplitMix64's state by one step and return its output (arithmetic modulo 2**64)."""
    x = x + np.uint64(_GOLDEN_RATIO)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
