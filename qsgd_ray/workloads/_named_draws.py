"""Draws by name while a model is made: each draw has a generator of its own, named by its kind, shape and number.

A layer of one shape so starts with the same numbers whether or not a layer of another shape was drawn before it: the
parts that two models share start alike. torch initialises layers by such draws (torch.nn.init).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qsgd_ray.random_keys import named_seed


@contextmanager
def named_draws(purpose: str, seed: int) -> Iterator[torch.Generator]:
    """Name all draws of torch within a block, and yield a generator for those that are asked of it.

    torch's global generator of the CPU is put back at the end.

    Args:
        purpose: what is drawn, in words.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(named_seed(purpose, "generator", seed))
    with torch.random.fork_rng(devices=[]), _NamedDraws(purpose, seed):
        yield generator


class _NamedDraws(TorchDispatchMode):
    """Seed the generator of each drawing operation by the operation, the shape of its result, and how often it came."""

    def __init__(self, purpose: str, seed: int) -> None:
        super().__init__()
        self._purpose, self._seed = purpose, seed
        self._draws: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, after its generator is seeded where it draws.

        Args:
            func: torch's operation.
            types: not looked at.
            args: of the operation.
            kwargs: of the operation.
        """
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            shape = str([*args[0].shape] if args and isinstance(args[0], Tensor) else args[:1])
            key = (func.overloadpacket.__name__, shape)
            self._draws[key] += 1
            generator = kwargs.get("generator") or torch.default_generator
            generator.manual_seed(named_seed(self._purpose, *key, self._draws[key], self._seed))
        return func(*args, **kwargs)
