"""The cases of the bench: a quick set, the usual one, and all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

from qsgd_ray.bench.circuits._case import Case, Precision
from qsgd_ray.bench.circuits.engine import What
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config.circuit import Entangle

_BATCHES = {4: (1, 64, 4096), 8: (1, 64, 1024), 12: (1, 64, 128), 16: (1, 16)}
_CHAINS = ((20, 4), (100, 256), (1000, 64))
_WHATS: tuple[What, ...] = get_args(What)


def quick() -> Iterator[Case]:
    """Yield the cases of `--quick`."""
    yield from (Case(CircuitSpec(n), 64, what) for n in (4, 8) for what in _WHATS)
    yield Case(CircuitSpec(8, 6, "ring"), 64, "gradient", "float32")
    yield Case(CircuitSpec(20), 4, "z")


def usual() -> Iterator[Case]:
    """Yield the cases of a plain call: each size once or twice, each other choice where it shows."""
    yield from (Case(CircuitSpec(n), batches[-1], what) for n, batches in _BATCHES.items() for what in _WHATS)
    yield from (Case(CircuitSpec(8), 1, what) for what in ("z", "gradient"))
    yield from (Case(CircuitSpec(n, 6, "ring"), _BATCHES[n][-1], what) for n in (8, 12) for what in ("z", "gradient"))
    yield Case(CircuitSpec(8), 1024, "gradient", "float32")
    yield Case(CircuitSpec(12, 6, "ring"), 128, "z", "float32")
    yield from (Case(CircuitSpec(n), batch, what) for n, batch in _CHAINS for what in ("z", "gradient"))
    yield Case(CircuitSpec(100, 3), 256, "gradient")


def every() -> Iterator[Case]:
    """Yield the cases of `--all`."""
    entangled: tuple[Entangle, ...] = ("chain", "ring")
    for (n, batches), depth, entangle in product(_BATCHES.items(), (2, 6), entangled):
        for batch, what, precision in product(batches, _WHATS, get_args(Precision)):
            yield Case(CircuitSpec(n, depth, entangle), batch, what, precision)
    for (n, batch), depth, what, precision in product(_CHAINS, (2, 3), _WHATS[1:], get_args(Precision)):
        yield Case(CircuitSpec(n, depth), batch, what, precision)
    yield from (Case(CircuitSpec(20, depth, "ring"), 1, "z") for depth in (2, 3))
