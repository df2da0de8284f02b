from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.reference_statistics import naive_bootstrap_interval, naive_unpaired_improvement

from qsgd_ray.analysis.improvement import paired_improvement, unpaired_improvement

counts = st.integers(0, 12)
scores = st.lists(st.one_of(st.integers(0, 8).map(lambda k: k / 8), st.none()), min_size=1, max_size=8)


def test_a_tie_is_half_a_win():
    improvement = paired_improvement(2, 1, 1)
    assert (improvement.probability, improvement.n, improvement.paired) == (0.625, 4, True)
    assert paired_improvement(0, 0, 0) is None


def test_without_ties_the_interval_is_wilsons():
    expected = stats.binomtest(7, 10).proportion_ci(0.9, method="wilson")
    assert paired_improvement(7, 0, 3, level=0.9).interval == pytest.approx((expected.low, expected.high))


def test_winning_every_pair_is_not_certainty():
    low, high = paired_improvement(10, 0, 0).interval
    assert 0.6 < low < 0.8
    assert high == pytest.approx(1.0)


@given(counts, counts, counts)
def test_swapping_the_arms_turns_a_probability_into_its_complement(wins, ties, losses):
    there, back = paired_improvement(wins, ties, losses), paired_improvement(losses, ties, wins)
    if there is None:
        assert back is None
        return
    assert back.probability == pytest.approx(1 - there.probability)
    assert back.interval == pytest.approx((1 - there.interval.high, 1 - there.interval.low))
    edges = (0, there.interval.low, there.probability, there.interval.high, 1)
    assert all(left <= right + 1e-12 for left, right in pairwise(edges))


@given(counts, counts, counts)
def test_one_win_more_never_lowers_it(wins, ties, losses):
    more = paired_improvement(wins + 1, ties, losses)
    less = paired_improvement(wins, ties + 1, losses)
    assert more.probability > less.probability
    assert more.interval.low >= less.interval.low


def test_counts_below_zero_are_refused():
    with pytest.raises(ValueError, match=r"wins, ties, losses: got 3, -1, 0; allowed: counts >= 0$"):
        paired_improvement(3, -1, 0)


@given(scores, scores, st.randoms())
@settings(max_examples=100, deadline=None)
def test_unpaired_is_its_twin_in_any_order_and_mirrors(arm, baseline, random):
    improvement = unpaired_improvement(arm, baseline)
    assert improvement.probability == pytest.approx(naive_unpaired_improvement(arm, baseline))
    assert (improvement.n, improvement.paired) == (min(len(arm), len(baseline)), False)
    assert unpaired_improvement(random.sample(arm, len(arm)), baseline) == improvement
    assert unpaired_improvement(baseline, arm).probability == pytest.approx(1 - improvement.probability)


@given(scores, scores, st.integers(0, 7))
@settings(max_examples=50, deadline=None)
def test_losing_a_run_never_helps(arm, baseline, k):
    lost = [None if i == k % len(arm) else score for i, score in enumerate(arm)]
    assert unpaired_improvement(lost, baseline).probability <= unpaired_improvement(arm, baseline).probability + 1e-12


def test_without_runs_there_is_nothing_to_say():
    assert unpaired_improvement([], [0.9]) is None
    assert unpaired_improvement([0.9], []) is None
    assert unpaired_improvement([None], [None]).probability == 0.5


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="values: got nan"):
        unpaired_improvement([float("nan")], [0.9])


def test_the_unpaired_interval_is_near_rliables_bootstrap():
    """Two kinds of interval, about 0.3 wide with thirty runs; with ten they are further apart."""
    rng = np.random.default_rng(3)
    arm, baseline = rng.normal(0.5, 1, 30).tolist(), rng.normal(0, 1, 30).tolist()
    rows = list(zip(arm, baseline, strict=True))  # drawn together, which independent runs do not mind

    def improvement(drawn):
        return naive_unpaired_improvement(*zip(*drawn, strict=True))

    bootstrap = naive_bootstrap_interval(rows, improvement, 1000)
    assert unpaired_improvement(arm, baseline).interval == pytest.approx(bootstrap, abs=0.05)


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_intervals_cover_the_truth_as_often_as_they_say(effect):
    """500 studies of ten runs each: paired 97.9 and 98.4 % by the binomial distribution, unpaired 98.3 and 98.6 % of
    3,000 measured; fewer than 465 of 500 covered has odds below 1 in 10,000,000."""
    rng = np.random.default_rng(4)
    paired = unpaired = 0
    for _ in range(500):
        arm, baseline = rng.normal(effect, 1, 10), rng.normal(0, 1, 10)
        truth = stats.norm.cdf(effect / np.sqrt(2))
        wins = int(np.sum(arm > baseline))
        low, high = paired_improvement(wins, 0, 10 - wins).interval
        paired += low <= truth <= high
        low, high = unpaired_improvement(arm.tolist(), baseline.tolist()).interval
        unpaired += low <= truth <= high
    assert paired >= 465
    assert unpaired >= 465
