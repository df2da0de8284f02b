"""A trial's age is right though the clock on the wall is set while it runs."""

from datetime import UTC, datetime, timedelta

import pytest

from qsgd_ray.execution import _trial_clock
from qsgd_ray.execution._trial_clock import TrialClock

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize("jump", [timedelta(0), timedelta(hours=-1), timedelta(hours=1), timedelta(days=-400)])
def test_a_clock_that_is_set_changes_no_age(monkeypatch, jump):
    now = [NOON]

    class Wall(datetime):
        @classmethod
        def now(cls, tz=None):
            return now[0]

    monkeypatch.setattr(_trial_clock, "datetime", Wall)
    monkeypatch.setattr(_trial_clock.time, "monotonic", lambda: 1000.0)
    clock = TrialClock()
    now[0] += jump + timedelta(seconds=30)
    monkeypatch.setattr(_trial_clock.time, "monotonic", lambda: 1030.0)
    assert now[0] - clock.started_at() == timedelta(seconds=30)
    assert now[0] - clock.started_at(clock.began_at) == timedelta(seconds=30)


def test_a_trial_that_another_process_began_keeps_its_beginning():
    before = NOON - timedelta(hours=2)
    assert TrialClock().started_at(before) == before
