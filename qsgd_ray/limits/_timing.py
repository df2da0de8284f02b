"""What a call takes: calls by size in; seconds in turns, and the memory of one call, out."""

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
# So often all sizes of a curve are gone through: where others use a machine too, it is half as fast for seconds.
PASSES = 8
MOST_ROUNDS = 6  # of a call in a pass


def in_turns(calls: Mapping[str, Call], budget_s: float) -> dict[str, list[float]]:
    """Seconds of each call, round by round: all sizes of a curve in every pass, so that a slow spell slows all alike.

    The budget goes to the calls alike; each gets one round a pass at least. Before its rounds in a pass, a call that
    takes less than a twentieth of the budget is made once unmeasured: it meets what the one before left in the caches.
    """
    took = {}
    for name, call in calls.items():
        call()
        took[name] = seconds_of(call)
    share_s = budget_s / PASSES / len(calls)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(PASSES):
        for name, call in calls.items():
            if took[name] <= budget_s / 20:
                call()
            rounds = min(MOST_ROUNDS, max(1, int(share_s / took[name])))
            found[name] += [seconds_of(call) for _ in range(rounds)]
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
