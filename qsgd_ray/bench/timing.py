"""Time calls side by side and return their seconds, round by round.

Rounds are interleaved (each call once a round), so that a busy neighbour slows all calls alike and ratios of medians
hold where the times themselves do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

MIN_ROUNDS, MAX_ROUNDS = 3, 25


def interleaved(
    calls: Mapping[str, Callable[[], object]], budget_s: float = 2.0, most_rounds: int = MAX_ROUNDS
) -> dict[str, list[float]]:
    """Return the wall seconds of each call, once in every round.

    A first call of each warms it up and is not measured. A call that takes more than a quarter of the budget joins the
    first 3 rounds only, one that takes more than all of it the first alone, so that a slow peer does not cost the
    others their rounds. A call below a twentieth of the budget is made twice a round and its second time is taken: the
    first still meets the threads and the memory that the engine before it left behind.

    Args:
        calls: functions without arguments by name, in the order in which they take turns.
        budget_s: seconds that the rounds may take; at least 3 rounds are made.
        most_rounds: largest number of rounds, 3 or more.

    Returns:
        Seconds by name, one a round; slow calls have fewer.
    """
    warm = {name: seconds_of(call) for name, call in calls.items()}
    quick = sum(seconds for seconds in warm.values() if seconds <= budget_s / 4)
    most = max(MIN_ROUNDS, min(most_rounds, int(budget_s / quick))) if quick else MIN_ROUNDS
    rounds = {
        name: most if seconds <= budget_s / 4 else MIN_ROUNDS if seconds <= budget_s else 1
        for name, seconds in warm.items()
    }
    seconds_by_name: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(most):
        for name, call in calls.items():
            if number < rounds[name]:
                if warm[name] <= budget_s / 20:
                    call()
                seconds_by_name[name].append(seconds_of(call))
    return seconds_by_name


def _beside(
    calls: Mapping[str, Callable[[], object]], reference: str, budget_s: float, most_rounds: int = MAX_ROUNDS
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the wall seconds of each call, and those of the reference around each of them.

    Made for ratios of a few percent on machines whose speed changes within seconds: the reference is called after each
    of the others. A first call of each warms it up and is not measured.

    Args:
        calls: functions without arguments by name.
        reference: the name of the call that the others are compared with.
        budget_s: seconds that the rounds may take; at least 3 rounds are made.
        most_rounds: largest number of rounds, 3 or more.

    Returns:
        Seconds by name, one a round; and for each name but `reference` the mean of the reference's seconds just before
        and just after each of its calls.
    """
    warm = {name: seconds_of(call) for name, call in calls.items()}
    others = [name for name in calls if name != reference]
    round_s = sum(warm[name] + warm[reference] for name in others)
    seconds_by_name: dict[str, list[float]] = {name: [] for name in calls}
    around: dict[str, list[float]] = {name: [] for name in others}
    before = seconds_of(calls[reference])
    for _ in range(max(MIN_ROUNDS, min(most_rounds, int(budget_s / round_s)))):
        for name in others:
            seconds_by_name[name].append(seconds_of(calls[name]))
            after = seconds_of(calls[reference])
            seconds_by_name[reference].append(after)
            around[name].append((before + after) / 2)
            before = after
    return seconds_by_name, around


def seconds_of(call: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one CPU thread, as in a Ray Train worker that has one CPU; put its number of threads back after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
