import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired
from support.reference_statistics import naive_bootstrap_interval, naive_holm, naive_interquartile_mean

from qsgd_ray.analysis import significance, statistics

VALUES = np.random.default_rng(5).normal(0.9, 0.02, 10)
OTHERS = VALUES + np.random.default_rng(6).normal(0.003, 0.004, 10)


def test_interquartile_mean_is_the_mean_of_the_middle_half():
    assert statistics.interquartile_mean([100.0, 1.0, 2.0, -100.0]) == 1.5
    assert statistics.interquartile_mean([1.0, 2.0, 6.0]) == 3.0


@given(st.lists(st.integers(0, 60), min_size=1, max_size=14), st.randoms())
@settings(max_examples=50, deadline=None)
def test_interquartile_mean_is_its_twin_in_any_order(values, random):
    shuffled = random.sample(values, len(values))
    assert statistics.interquartile_mean(values) == pytest.approx(naive_interquartile_mean(values))
    assert statistics.interquartile_mean(shuffled) == pytest.approx(statistics.interquartile_mean(values))


def test_bootstrap_interval_is_that_of_resampling_by_hand():
    """Ends of bootstraps of 2,000 and 20,000 resamples, apart by about 2 % of the interval; 8 % would be a defect."""
    low, high = naive_bootstrap_interval(VALUES.tolist(), naive_interquartile_mean, 20_000)
    assert statistics.bootstrap_interval(VALUES) == pytest.approx((low, high), abs=0.08 * (high - low))


@given(st.lists(st.integers(0, 60), min_size=2, max_size=10), st.randoms(), st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_bootstrap_knows_no_order_and_follows_its_values(values, random, shift):
    interval = statistics.bootstrap_interval(np.array(values, dtype=float))
    shuffled = np.array(random.sample(values, len(values)), dtype=float)
    assert statistics.bootstrap_interval(shuffled) == interval
    assert statistics.bootstrap_interval(shuffled + shift) == pytest.approx(np.add(interval, shift))


def test_bootstrap_interval_contains_its_estimate_and_repeats_itself():
    interval = statistics.bootstrap_interval(VALUES)
    assert interval.low < statistics.interquartile_mean(VALUES) < interval.high
    assert interval == statistics.bootstrap_interval(VALUES[::-1])


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    """100 samples of 12, nominal 95 %, measured over 600 samples 94 %; below 84 hits has odds under 1 in 1,000."""
    rng = np.random.default_rng(0)
    intervals = [statistics.bootstrap_interval(rng.normal(0, 1, 12)) for _ in range(100)]
    assert sum(interval.low < 0 < interval.high for interval in intervals) >= 84


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_values_have_no_interval(n):
    assert statistics.bootstrap_interval(VALUES[:n]) is None
    assert statistics.bootstrap_band(VALUES[:n, None]) is None
    assert statistics.difference_interval(VALUES[:n]) is None
    assert significance.smallest_detectable_effect(VALUES[:n], 0.05, 0.8) is None


def test_constant_values_have_a_point_as_interval():
    assert statistics.bootstrap_interval(np.full(6, 0.3)) == (0.3, 0.3)
    assert statistics.difference_interval(np.full(6, 0.3)) == (0.3, 0.3)


def test_band_is_the_interval_of_every_column():
    low, high = statistics.bootstrap_band(np.stack([VALUES, 2 * VALUES], axis=1))
    assert low.shape == high.shape == (2,)
    np.testing.assert_allclose(2 * low[0], low[1])


def test_paired_tests_agree_with_scipy_and_statsmodels():
    differences = statistics.paired_differences(OTHERS, VALUES)
    assert significance.paired_t_p_value(differences) == pytest.approx(stats.ttest_rel(OTHERS, VALUES).pvalue, rel=1e-6)
    tost = ttost_paired(OTHERS, VALUES, -0.006, 0.006)[0]
    assert significance.tost_p_value(differences, 0.006) == pytest.approx(tost, rel=1e-6)
    below = stats.ttest_1samp(differences, 0.006, alternative="less").pvalue
    above = stats.ttest_1samp(differences, -0.006, alternative="greater").pvalue
    assert significance.tost_p_value(differences, 0.006) == pytest.approx(max(below, above), rel=1e-6)
    interval = stats.ttest_rel(OTHERS, VALUES).confidence_interval()
    np.testing.assert_allclose(statistics.difference_interval(differences), interval, rtol=1e-6)


@pytest.mark.parametrize(("difference", "p"), [(0.0, 0.0), (0.0099, 0.0), (-0.0099, 0.0), (0.01, 1.0), (-0.02, 1.0)])
def test_without_variance_equivalence_is_certain_one_way_or_the_other(difference, p):
    assert significance.tost_p_value(np.full(5, difference), 0.01) == p


def test_without_variance_a_difference_is_certain_one_way_or_the_other():
    assert significance.paired_t_p_value(np.zeros(5)) == 1.0
    assert significance.paired_t_p_value(np.full(5, 1e-6)) == 0.0


def test_equal_differences_of_decimal_fractions_have_no_variance():
    left = np.array([0.1, 0.2, 0.3, 0.7, 0.9])
    assert np.ptp((left + 0.1) - left) > 0
    assert np.ptp(statistics.paired_differences(left + 0.1, left)) == 0


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=12), st.integers(1, 15))
@settings(max_examples=50, deadline=None)
def test_p_values_are_probabilities_and_mirror(steps, margin):
    differences = np.array(steps) / 1000
    for p in (significance.paired_t_p_value, lambda d: significance.tost_p_value(d, margin / 1000)):
        assert 0 <= p(differences) <= 1
        assert p(differences) == pytest.approx(p(-differences))


def test_sign_test_is_the_binomial_one():
    assert significance.sign_test_p_value(10, 0) == pytest.approx(2 / 2**10)
    assert significance.sign_test_p_value(0, 0) == 1.0
    assert significance.sign_test_p_value(3, 9) == significance.sign_test_p_value(9, 3)


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert significance.holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert significance.holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=10, deadline=None)
def test_holm_agrees_with_statsmodels_and_with_its_twin(p_values):
    np.testing.assert_allclose(significance.holm(p_values), naive_holm(p_values))
    np.testing.assert_allclose(significance.holm(p_values), multipletests(p_values, method="holm")[1])


def test_detectable_effect_agrees_with_statsmodels_where_that_is_right():
    expected = TTestPower().solve_power(nobs=10, alpha=0.05, power=0.8) * np.std(VALUES, ddof=1)
    assert significance.smallest_detectable_effect(VALUES, 0.05, 0.8) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05 / 6), (5, 0.0005), (10, 0.05)])
def test_detectable_effect_is_detected_with_the_power_it_states(n, alpha):
    """20,000 simulated studies; 80 % ± 1.2 points is more than four standard errors (false alarm below 1 in 10,000)."""
    rng = np.random.default_rng(1)
    spread = np.array([-1.0, 1.0] * 5)[:n]
    effect = significance.smallest_detectable_effect(spread, alpha, 0.8) / np.std(spread, ddof=1)
    samples = rng.normal(effect, 1, (20_000, n))
    assert np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < alpha) == pytest.approx(0.8, abs=0.012)


def test_constant_differences_detect_anything():
    assert significance.smallest_detectable_effect(np.full(5, 0.2), 0.05, 0.8) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused_in_one_line(bad):
    for refused in (
        lambda: statistics.finite([0.1, bad]),
        lambda: statistics.without_missing([0.1, None, bad]),
        lambda: statistics.bootstrap_interval(np.array([0.1, bad])),
        lambda: statistics.paired_differences([0.1, bad], [0.1, 0.2]),
    ):
        with pytest.raises(ValueError, match=f"values: got {bad}; allowed: finite numbers, None for a missing one$"):
            refused()


def test_a_mean_of_nothing_and_half_a_pair_are_refused():
    with pytest.raises(ValueError, match=r"values: got none; allowed: at least one$"):
        statistics.interquartile_mean([])
    with pytest.raises(ValueError, match=r"pairs: got 2 and 1 values; allowed: as many of each$"):
        statistics.paired_differences([0.1, 0.2], [0.1])


def test_missing_scores_are_left_to_the_caller_to_count():
    assert statistics.without_missing([0.1, None, 0.3]).tolist() == [0.1, 0.3]


@pytest.mark.parametrize("n_hits", [0, 3, 20])
def test_the_interval_of_a_share_is_wilson_s(n_hits):
    interval, n, z = statistics.proportion_interval(n_hits, 20), 20, 1.959963984540054
    p = n_hits / n
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert interval.low == pytest.approx((centre - half) / (1 + z * z / n), abs=1e-12)
    assert interval.high == pytest.approx((centre + half) / (1 + z * z / n), abs=1e-12)
    assert 0 <= interval.low <= p <= interval.high <= 1


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (-1, 2)])
def test_a_share_that_cannot_be_is_refused(counts):
    with pytest.raises(ValueError, match="n_hits: got"):
        statistics.proportion_interval(*counts)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 12, 41])
def test_the_band_is_scipys_bootstrap_of_the_interquartile_mean(n):
    values = np.random.default_rng(n).normal(size=(n, 3))
    slow = stats.bootstrap(
        (np.sort(values, axis=0),),
        statistics.interquartile_mean,
        n_resamples=statistics._RESAMPLES,
        method="percentile",
        axis=0,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = statistics.bootstrap_band(values)
    np.testing.assert_allclose(low, slow.low, rtol=0, atol=1e-14)
    np.testing.assert_allclose(high, slow.high, rtol=0, atol=1e-14)
