import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.reference_statistics import naive_share

from qsgd_ray.analysis.profile import performance_profile

scores = st.lists(st.one_of(st.integers(0, 20).map(lambda k: k / 20), st.none()), min_size=1, max_size=10)
THRESHOLDS = np.arange(21) / 20


@given(scores, st.randoms())
@settings(max_examples=50, deadline=None)
def test_a_profile_is_its_twin_in_any_order(runs, random):
    profile = performance_profile(runs, THRESHOLDS)
    np.testing.assert_allclose(profile.share, [naive_share(runs, threshold) for threshold in THRESHOLDS])
    again = performance_profile(random.sample(runs, len(runs)), THRESHOLDS)
    np.testing.assert_array_equal(again.share, profile.share)


@given(scores)
@settings(max_examples=50, deadline=None)
def test_a_profile_falls_inside_its_band_and_counts_its_nulls(runs):
    profile = performance_profile(runs, THRESHOLDS)
    assert (profile.n, profile.n_null) == (len(runs), runs.count(None))
    assert np.all(np.diff(profile.share) <= 0)
    assert np.all((profile.low >= 0) & (profile.low <= profile.share + 1e-12))
    assert np.all((profile.share <= profile.high + 1e-12) & (profile.high <= 1))
    assert profile.share[0] == (len(runs) - runs.count(None)) / len(runs)


@given(scores, st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_losing_a_run_lowers_the_profile_everywhere_it_counted(runs, k):
    k %= len(runs)
    lost = [None if i == k else score for i, score in enumerate(runs)]
    before, after = performance_profile(runs, THRESHOLDS), performance_profile(lost, THRESHOLDS)
    counted = 0 if runs[k] is None else (runs[k] >= THRESHOLDS) / len(runs)
    np.testing.assert_allclose(before.share - after.share, counted, atol=1e-12)


def test_a_score_that_is_just_reached_counts():
    assert performance_profile([0.5, 0.7], [0.5, 0.5001, 0.7]).share.tolist() == [1.0, 0.5, 0.5]


def test_the_band_is_wilsons_at_each_score():
    profile = performance_profile([0.1, 0.2, 0.3, None, 0.4], [0.25])
    expected = stats.binomtest(2, 5).proportion_ci(0.95, method="wilson")
    assert (profile.low[0], profile.high[0]) == pytest.approx((expected.low, expected.high))


def test_without_runs_there_is_no_profile():
    assert performance_profile([], [0.5]) is None


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="values: got nan"):
        performance_profile([0.5], [float("nan")])
    with pytest.raises(ValueError, match="values: got inf"):
        performance_profile([float("inf")], [0.5])
