"""Time calls of growing sizes in turns, and count the memory of one call."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.autograd.profiler_legacy import profile

from qsgd_ray.bench.timing import seconds_of

Call = Callable[[], Any]
# Passes through all sizes of a curve: a machine that others use too is half as fast for seconds.
PASSES = 8
MOST_ROUNDS = 6  # of a call in a pass


def in_turns(calls: Mapping[str, Call], budget_s: float) -> dict[str, list[float]]:
    """Return the seconds of each call, round by round; every pass goes through all sizes, so that a slow spell slows
    all.

    The calls share the budget equally; each has one round a pass at least. Before its rounds in a pass, a call that
    takes less than a twentieth of the budget is made once unmeasured: it meets the caches as the call before left them.
    """
    took = {}
    for name, call in calls.items():
        call()
        took[name] = seconds_of(call)
    share_s = budget_s / PASSES / len(calls)
    seconds_by_name: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(PASSES):
        for name, call in calls.items():
            if took[name] <= budget_s / 20:
                call()
            rounds = min(MOST_ROUNDS, max(1, int(share_s / took[name])))
            seconds_by_name[name] += [seconds_of(call) for _ in range(rounds)]
    return seconds_by_name


def spread(seconds: list[float]) -> dict[str, Any]:
    """Return columns of a row: the median, and the quartiles around it."""
    low, high = np.percentile(seconds, [25, 75]).tolist()
    return {"rounds": len(seconds), "median_s": statistics.median(seconds), "low_s": low, "high_s": high}


def peak_bytes(call: Call) -> int:
    """Return the peak of bytes that tensors made in one call held, by the count of torch's allocator on this thread.

    The count is exact and the same in every process. Resident memory would also hold the blocks that the C library
    keeps after they are freed, up to three times as much. Memory that is not torch's (Aer's, numpy's) is not counted.
    """
    recorder = profile(profile_memory=True)
    recorder.__enter__()
    try:
        call()
    finally:
        threads = torch._C._autograd._disable_profiler_legacy()
    return max(accumulate((event.cpu_memory_usage() for thread in threads for event in thread), initial=0))


def middle(values: Any) -> dict[str, float]:
    """Return columns of a row: the median of a signal and its quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"signal": median, "signal_low": low, "signal_high": high}
