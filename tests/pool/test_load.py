"""Requests at an actor, summed over time: the difference of two readings is their mean."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.pool._load import Load, RequestMeter, mean_requests


@pytest.fixture
def clock(monkeypatch):
    """Set by hand."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_requests_count_from_their_coming_to_their_end_also_amid_one(clock):
    meter = RequestMeter()
    clock[0] += 1
    with meter:
        clock[0] += 2
        assert meter.read() == Load(2.0, 3.0)
        with meter:
            clock[0] += 3
            assert meter.count == 2
    clock[0] += 4
    assert meter.read() == Load(8.0, 10.0)
    assert meter.count == 0


def test_a_request_that_fails_has_ended(clock):
    meter = RequestMeter()
    with pytest.raises(ZeroDivisionError), meter:
        raise ZeroDivisionError
    assert meter.count == 0


spans = st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 10)), min_size=1, max_size=20)


@given(spans)
def test_any_two_readings_give_the_mean_of_what_lies_between(spans):
    """The mean over a whole is the mean of its parts, weighted by their length."""
    readings = [Load(0.0, 0.0)]
    for n_requests, span_s in spans:
        readings.append(Load(readings[-1].request_s + n_requests * span_s, readings[-1].age_s + span_s))
    parts = sum(mean_requests(a, b) * (b.age_s - a.age_s) for a, b in itertools.pairwise(readings))
    assert parts / readings[-1].age_s == pytest.approx(mean_requests(None, readings[-1]))


def test_an_actor_that_started_again_counts_from_its_start():
    assert mean_requests(Load(50.0, 100.0), Load(1.0, 4.0)) == 0.25
    assert mean_requests(Load(1.0, 4.0), Load(1.0, 4.0)) == 0.25
    assert mean_requests(None, Load(0.0, 0.0)) == 0.0
