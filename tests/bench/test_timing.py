"""Rounds are interleaved, the first call of each is not counted, and a slow call does not cost the others theirs."""

import time

import pytest

from qsgd_ray.bench import timing
from qsgd_ray.bench.timing import MAX_ROUNDS, MIN_ROUNDS, _beside, interleaved


class Clock:
    """A clock that moves only where a call says so, and what was called when."""

    def __init__(self) -> None:
        self.now, self.called = 0.0, []

    def perf_counter(self) -> float:
        return self.now

    def call(self, name, *seconds):
        """A call of this name that takes these seconds in turn, the last ever after."""
        left = list(seconds)

        def made():
            self.called.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return made


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_calls_take_turns_after_one_call_of_each_to_warm_up(clock):
    interleaved({"a": clock.call("a", 0.25), "b": clock.call("b", 0.25)}, budget_s=2)
    assert clock.called == ["a", "b"] * 5


def test_the_first_call_is_not_counted(clock):
    found = interleaved({"a": clock.call("a", 0.5, 0.25, 0.125, 0.0625)}, budget_s=2)
    assert found == {"a": [0.25, 0.125, 0.0625, 0.0625]}


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [(2**-10, MAX_ROUNDS), (0.125, 16), (0.5, 4), (0.75, MIN_ROUNDS), (2.0, MIN_ROUNDS), (3.0, 1)],
)
def test_there_are_as_many_rounds_as_the_budget_holds(clock, seconds, rounds):
    assert interleaved({"a": clock.call("a", seconds)}, budget_s=2) == {"a": [seconds] * rounds}


def test_a_case_may_ask_for_more_rounds_than_others_take(clock):
    assert interleaved({"a": clock.call("a", 2**-6)}, budget_s=2, most_rounds=60) == {"a": [2**-6] * 60}
    assert interleaved({"a": clock.call("a", 2**-4)}, budget_s=2, most_rounds=60) == {"a": [2**-4] * 32}


def test_slow_calls_do_not_cost_the_others_their_rounds(clock):
    seconds = {"quick": 0.125, "slow": 1.0, "slowest": 5.0}
    found = interleaved({name: clock.call(name, taken) for name, taken in seconds.items()}, budget_s=2)
    assert {name: len(times) for name, times in found.items()} == {"quick": 16, "slow": MIN_ROUNDS, "slowest": 1}
    rounds = clock.called[3:]
    assert rounds[:7] == ["quick", "slow", "slowest", "quick", "slow", "quick", "slow"]
    assert set(rounds[7:]) == {"quick"}


def test_no_call_takes_no_time():
    assert interleaved({}) == {}


def test_seconds_are_those_of_the_wall():
    (once, *_) = interleaved({"sleep": lambda: time.sleep(0.02)}, budget_s=0.01)["sleep"]
    assert once >= 0.02


def test_each_call_has_the_reference_before_and_after_it(clock):
    calls = {
        "a": clock.call("a", 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        "b": clock.call("b", 0.25, 1.0, 2.0, 3.0),
        "c": clock.call("c", 0.25, 5.0, 6.0, 7.0),
    }
    found, around = _beside(calls, "a", budget_s=2)
    assert clock.called == ["a", "b", "c", "a", *"bacabacabaca"]
    assert found == {"a": [2.0, 4.0, 8.0, 16.0, 32.0, 64.0], "b": [1.0, 2.0, 3.0], "c": [5.0, 6.0, 7.0]}
    assert around == {"b": [1.5, 6.0, 24.0], "c": [3.0, 12.0, 48.0]}
    assert len(_beside({"a": clock.call("a", 2**-4), "b": clock.call("b", 2**-4)}, "a", 2, 10)[0]["b"]) == 10
