"""What this hardware can do at most: a device and a type in; floating point operations a second out, as measured.

A large matrix product is as near to the peak as code gets; of a GPU it reaches most of what the data sheet says. The
utilisation that a study tells is against this measurement, on the very threads and in the type that train.
"""

from __future__ import annotations

import time
from functools import cache

import torch

SIZES = {"cpu": 1536, "cuda": 8192}
REPEATS = 5


@cache
def matmul_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """The best of a few products; a fraction of a second, once a process."""
    kind = torch.device(device).type
    size = SIZES[kind]
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(REPEATS + 1):  # the first one warms up
        began = time.perf_counter()
        left @ right
        if kind == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
