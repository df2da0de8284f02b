"""A pool grows while requests wait, and shrinks after a while without: a rule on numbers, no Ray."""

from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.pool._autoscaler_policy import BUSY, PATIENCE_S, ScalingPolicy

IDLE_S = 10.0


def sizes(requests: list[float], least: int = 1, most: int = 8, every_s: float = 0.5) -> list[int]:
    size = ScalingPolicy(least, most, IDLE_S)
    return [size.target(every_s * n, now) for n, now in enumerate(requests)]


def test_requests_that_wait_for_seconds_bring_actors_as_many_as_there_are_requests():
    counts = sizes([3.9] * 20)
    assert counts[0] == 1
    assert counts[-1] == 5  # five actors with 3.9 requests are at work for 0.78 of the time
    assert counts.index(5) * 0.5 == PATIENCE_S


def test_a_moments_wait_brings_none():
    assert set(sizes([0.5, 0.5, 8, 8, 0.5] * 10)) == {1}


def test_actors_go_only_after_a_while_in_which_fewer_would_have_done():
    counts = sizes([3.0] * 10 + [0.1] * 60)
    last = len(counts) - 1 - counts[::-1].index(4)
    assert IDLE_S - 1 <= 0.5 * (last - 10) <= IDLE_S + 1
    assert counts[-1] == 1


def test_a_pause_shorter_than_that_takes_none():
    assert min(sizes(([3.0] * 10 + [0.0] * 10) * 5)[5:]) == 4


def test_a_busy_actor_is_enough_while_it_has_some_rest():
    assert set(sizes([BUSY] * 20)) == {1}
    assert max(sizes([BUSY + 0.01] * 20)) == 2


@given(st.lists(st.floats(0, 100), min_size=1, max_size=100), st.integers(1, 4), st.integers(0, 8))
def test_the_bounds_hold_whatever_comes(requests, least, more):
    assert all(least <= n <= least + more for n in sizes(requests, least, least + more))
