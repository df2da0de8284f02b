import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.duration.survfunc import SurvfuncRight

from qsgd_ray.analysis.time_to_target import median_time, time_saved

BUDGET = 20
times = st.lists(st.one_of(st.integers(1, BUDGET), st.none()), min_size=1, max_size=12)


def kaplan_meier(times) -> SurvfuncRight:
    """Every miss censored at the budget, and after the hits there."""
    clock = [BUDGET + 0.5 if time is None else time for time in times]
    return SurvfuncRight(clock, [time is not None for time in times])


@pytest.mark.parametrize(
    ("times", "median", "hits"),
    [
        ([3, 1, 2], 2, 3),
        ([1, 2, None], 2, 2),
        ([1, 2, 3, None], 2.5, 3),
        ([1, 2, None, None], None, 2),
        ([None], None, 0),
        ([], None, 0),
    ],
)
def test_a_miss_is_later_than_every_hit(times, median, hits):
    time = median_time(times)
    assert (time.median, time.hits, time.n, time.misses) == (median, hits, len(times), len(times) - hits)


@given(times)
@settings(max_examples=60, deadline=None)
def test_the_median_is_kaplan_and_meiers(times):
    """Of an even number of runs the mean of two, as in SAS: where the curve comes to one half, and where below."""
    curve = kaplan_meier(times)
    middle = (curve.quantile(0.5 - 1e-9) + curve.quantile(0.5 + 1e-9)) / 2
    assert median_time(times).median == (None if np.isnan(middle) else middle)


@given(times, times, st.data())
@settings(max_examples=60, deadline=None)
def test_epochs_saved_are_the_area_between_two_survival_functions(arm, baseline, data):
    n = min(len(arm), len(baseline))
    arm, baseline = arm[:n], baseline[:n]
    saved = time_saved(arm, baseline, BUDGET)
    if all(time is None for time in arm + baseline):
        assert saved is None
        return

    def area(times):
        """Restricted mean by hand: the share still on its way, epoch after epoch."""
        curve = kaplan_meier(times)
        survival = {0.0: 1.0} | dict(zip(curve.surv_times, curve.surv_prob, strict=True))
        return sum(survival[max(t for t in survival if t <= epoch)] for epoch in range(BUDGET))

    assert saved.mean == pytest.approx(area(baseline) - area(arm))
    assert (saved.n_pairs, saved.misses) == (n, arm.count(None) + baseline.count(None))
    back = time_saved(baseline, arm, BUDGET)
    assert back.mean == pytest.approx(-saved.mean)
    order = data.draw(st.permutations(range(n)))
    shuffled = time_saved([arm[k] for k in order], [baseline[k] for k in order], BUDGET)
    assert shuffled.mean == pytest.approx(saved.mean)
    assert (shuffled.interval is None) == (n < 2)


@given(times, st.integers(0, 11))
@settings(max_examples=60, deadline=None)
def test_missing_instead_of_arriving_never_makes_it_sooner(times, k):
    missed = [None if i == k % len(times) else time for i, time in enumerate(times)]
    before, after = median_time(times), median_time(missed)
    assert (np.inf if after.median is None else after.median) >= (np.inf if before.median is None else before.median)
    assert after.misses >= before.misses
    if before.interval is not None:
        assert after.interval.low >= before.interval.low
        assert after.interval.high >= before.interval.high


def test_six_runs_have_an_interval_and_five_have_none():
    assert median_time([1, 2, 3, 4, 5]).interval is None
    assert median_time([4, 1, 3, 2, 6, 5]).interval == (1, 6)
    assert median_time([4, 1, 3, 2, None, 5]).interval == (1, np.inf)


def test_the_interval_covers_the_median_whatever_lies_beyond_the_budget():
    """300 arms of ten runs, a quarter misses: 97.9 % by the binomial distribution; below 279 has odds under 1e-6."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        clock = rng.exponential(1, 10)
        interval = median_time([t if t < np.log(4) else None for t in clock]).interval
        covered += interval.low <= np.log(2) <= interval.high
    assert covered >= 279


def test_bad_times_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"times: got -1; allowed: numbers >= 0, None for a miss$"):
        median_time([3, -1])
    with pytest.raises(ValueError, match="values: got nan"):
        median_time([float("nan")])
    with pytest.raises(ValueError, match=r"times: got 2 and 1; allowed: one of each pair$"):
        time_saved([1, 2], [1], 8)
    with pytest.raises(ValueError, match=r"times: got 9; allowed: at most the budget of 8$"):
        time_saved([9], [1], 8)
