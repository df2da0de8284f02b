"""What a call takes: calls by size in; seconds in turns, and the memory of one call, out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler_legacy import profile

from qsgd_ray.bench.timing import MAX_ROUNDS, interleaved

Call = Callable[[], Any]
# So often all sizes of a curve are gone through: where others use a machine too, it is slow for seconds.
PASSES = 3


def in_turns(calls: Mapping[str, Call], budget_s: float) -> dict[str, list[float]]:
    """`interleaved`, the quick calls among themselves: beside slow ones they would get as few rounds as these.

    Quick and slow ones take turns, too: a machine may be half as fast a minute later.
    """
    slow: dict[str, Call] = {}
    quick: dict[str, Call] = {}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        (quick if time.perf_counter() - began < budget_s / (8 * MAX_ROUNDS) else slow)[name] = call
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(PASSES):
        for group, share_s in ((quick, budget_s / 2), (slow, budget_s)):
            for name, seconds in interleaved(group, share_s / PASSES, MAX_ROUNDS // PASSES + 1).items():
                found[name] += seconds
    return found


def spread(seconds: list[float]) -> dict[str, Any]:
    """Columns of a row: the median, and between which the middle half lies."""
    low, high = np.percentile(seconds, [25, 75]).tolist()
    return {"rounds": len(seconds), "median_s": statistics.median(seconds), "low_s": low, "high_s": high}


def peak_bytes(call: Call) -> int:
    """The most that tensors made in one call held at a time, by the count of torch's allocator on this thread.

    Exact, and the same in every process; the resident memory also holds what the C library keeps of blocks freed
    before, which was up to three times as much. Memory that is not torch's, Aer's or numpy's, is not in it.
    """
    recorder = profile(profile_memory=True)
    recorder.__enter__()
    try:
        call()
    finally:
        threads = torch._C._autograd._disable_profiler_legacy()
    return max(accumulate((event.cpu_memory_usage() for thread in threads for event in thread), initial=0))


def middle(values: Any) -> dict[str, float]:
    """Columns of a row: the median of a signal and its quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"signal": median, "signal_low": low, "signal_high": high}
