import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.synthetic_results import Made, Run, a_study, lost, made, runs

from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.analysis.summary import arm_summaries
from qsgd_ray.analysis.verdict import ArmVerdict, Verdict, decide, judge
from qsgd_ray.config import Decision, StudyError
from qsgd_ray.config.trial import confirm_trials, search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import StudyTables

RULE = Decision(margin=0.01)
BASE = 0.9 + np.array([0, 8, -7, 3, -2, 5, -6, 1, -4, 2]) / 1000
MIRROR = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}


def verdict_on(arm, baseline=BASE, **fields) -> ArmVerdict:
    """The verdict on one arm, from whole rows; accuracies or runs, None a diverged run."""

    def as_runs(values):
        return [value if isinstance(value, Run) else runs([value])[0] for value in values]

    (verdict,) = judge(made({"adamw": as_runs(baseline), "sine": as_runs(arm)}, **fields).tables())
    return verdict


def decided(differences, rule=RULE) -> ArmVerdict:
    return decide({"sine": Pairs(np.round(differences, 12))}, rule, "adamw")[0]


def test_an_arm_against_itself_is_equivalent():
    v = verdict_on(BASE)
    assert v.verdict == Verdict.EQUIVALENT
    assert (v.difference, v.interval, v.p_difference, v.p_equivalence) == (0.0, (0.0, 0.0), 1.0, 0.0)
    assert v.improvement.probability == 0.5
    assert v.smallest_detectable_effect == 0.0


def test_an_effect_at_the_margin_is_rarely_called_equivalent():
    """200 studies whose true difference is the margin: at most 5 % equivalent; more than 20 has odds of 1 in 860."""
    rng = np.random.default_rng(1)
    verdicts = [decided(rng.normal(0.01, 0.006, 10)).verdict for _ in range(200)]
    assert verdicts.count(Verdict.EQUIVALENT) <= 20


def test_quiet_equal_arms_are_mostly_called_equivalent():
    """200 A/A studies of ten seeds, differences of sd a third of the margin; fewer than 190 equivalent is a defect."""
    rng = np.random.default_rng(2)
    verdicts = [decided(rng.normal(0, 0.01 / 3, 10)).verdict for _ in range(200)]
    assert verdicts.count(Verdict.EQUIVALENT) >= 190


def test_a_planted_effect_is_found_in_whole_rows():
    v = verdict_on(BASE + 0.02 + np.array([1, -1] * 5) / 1000)
    assert v.verdict == Verdict.BETTER
    assert v.difference == pytest.approx(0.02)
    assert v.interval.low < 0.02 < v.interval.high
    assert v.equivalence_interval.low > v.interval.low
    assert "2.00 points more accurate than adamw" in v.reason
    assert verdict_on(BASE - 0.02).verdict == Verdict.WORSE


def test_a_real_difference_below_the_margin_is_equivalent_and_the_reason_says_so():
    v = verdict_on(BASE + 0.003 + np.array([1, -1] * 5) / 1000)
    assert v.p_difference < 0.05
    assert v.verdict == Verdict.EQUIVALENT
    assert "real" in v.reason
    assert "smaller than the margin" in v.reason


def test_a_real_difference_that_may_or_may_not_exceed_the_margin_is_inconclusive():
    v = verdict_on(BASE + 0.0095 + np.array([3, -3] * 5) / 1000)
    assert v.p_difference < 0.05
    assert v.verdict == Verdict.INCONCLUSIVE
    assert "but these seeds cannot tell whether it exceeds the margin" in v.reason


def test_equivalence_that_the_seeds_could_not_support_is_inconclusive():
    differences = 0.0135 * np.array([1, -1] * 5)
    v = decided(differences)
    assert v.p_equivalence < 0.05
    assert v.smallest_detectable_effect > v.margin
    assert v.verdict == Verdict.INCONCLUSIVE
    assert "not supported" in v.reason


def test_a_noisy_null_is_inconclusive_and_says_what_the_seeds_can_show():
    v = decided(0.05 * np.array([1, -1] * 5))
    assert v.verdict == Verdict.INCONCLUSIVE
    assert "reliably show only" in v.reason


def test_a_lucky_size_is_called_overstated():
    v = decided(0.03 + 0.035 * np.array([1, -1] * 5))
    assert v.verdict == Verdict.BETTER
    assert v.difference < v.smallest_detectable_effect
    assert "overstated" in v.reason


def test_exactly_the_margin_is_better():
    assert verdict_on(BASE + 0.01).verdict == Verdict.BETTER


def test_fewer_than_five_pairs_decide_nothing():
    v = verdict_on(BASE[:4] + 0.05, BASE[:4])
    assert v.verdict == Verdict.INCONCLUSIVE
    assert "4 of the 5 pairs" in v.reason


def test_an_unfinished_confirmation_decides_nothing():
    v = verdict_on([Run(x + 0.05) for x in BASE[:7]], BASE)
    assert v.verdict == Verdict.INCONCLUSIVE
    assert (v.n_pairs, v.n_pending) == (7, 3)
    assert "7 of 10" in v.reason


def test_without_any_confirmation_every_arm_is_inconclusive():
    study = a_study(["adamw", "sine", "circuit"], 10)
    tables = made({}, study=study).tables()
    assert [(v.verdict, v.difference, v.p_difference) for v in judge(tables)] == [
        (Verdict.INCONCLUSIVE, None, None)
    ] * 2
    assert [(s.n_runs, s.iqm, s.step_ratio) for s in arm_summaries(tables)] == [(0, None, None)] * 3


def test_a_study_of_its_baseline_alone_has_no_verdict():
    assert judge(made({"adamw": runs(BASE)}).tables()) == ()


def test_a_lost_process_leaves_its_pair_to_run():
    v = verdict_on([*(BASE[:9] + 0.05), lost(Ending.LOST)])
    assert v.verdict == Verdict.INCONCLUSIVE
    assert (v.n_pairs, v.n_lost, v.n_pending) == (9, 0, 1)


@pytest.mark.parametrize("ending", [Ending.DIVERGED, Ending.FAILED])
def test_an_arm_that_never_finishes_is_worse(ending):
    v = verdict_on([lost(ending)] * 10)
    assert v.verdict == Verdict.WORSE
    assert (v.n_pairs, v.n_lost, v.difference) == (0, 10, None)


@given(st.lists(st.booleans(), min_size=10, max_size=10).filter(any), st.floats(0, 0.05))
@settings(max_examples=30, deadline=None)
def test_divergence_of_the_arm_alone_never_makes_it_equivalent(diverged, gain):
    v = verdict_on([None if gone else x + gain for x, gone in zip(BASE, diverged, strict=True)])
    assert v.verdict != Verdict.EQUIVALENT
    assert v.p_equivalence is None
    if sum(diverged) >= 5:
        assert v.verdict != Verdict.BETTER


def test_a_lost_pair_counts_as_a_loss_and_a_close_one_as_a_tie():
    arm = [None, None, *(BASE[2:9] + 0.02), BASE[9] + 0.001]
    v = verdict_on(arm)
    assert v.verdict == Verdict.INCONCLUSIVE
    assert "wins 7, ties 1 and loses 2" in v.reason
    assert v.improvement.probability == 0.8


def test_a_tiny_gain_is_not_better_because_one_baseline_run_diverged():
    assert verdict_on(BASE + 0.0001, [None, *BASE[1:]]).verdict == Verdict.INCONCLUSIVE


def test_one_diverged_run_does_not_hide_a_large_gain_among_several_arms():
    gain = [None, *(BASE[1:] + 0.02 + np.array([3, -3, 3, -3, 3, -3, 3, -3, 0]) / 1000)]
    tables = made({"adamw": runs(BASE), "gain": runs(gain), **{f"same{k}": runs(BASE) for k in range(4)}}).tables()
    verdict = judge(tables)[0]
    assert verdict.verdict == Verdict.BETTER
    assert "wins 9, ties 0 and loses 1, and over the complete pairs its difference is +2.00 points" in verdict.reason


def test_a_large_gain_does_not_hide_that_three_of_ten_runs_diverged():
    v = verdict_on([None, None, None, *(BASE[3:] + 0.05)])
    assert v.verdict == Verdict.INCONCLUSIVE
    assert "wins 7, ties 0 and loses 3" in v.reason


def test_complete_pairs_below_the_margin_leave_the_word_to_the_signs():
    v = verdict_on([None, *(BASE[1:] + 0.008)])
    assert v.verdict == Verdict.INCONCLUSIVE
    assert "wins 0, ties 9 and loses 1" in v.reason


def test_the_word_follows_the_signs_that_decided():
    """One large and eight small gains: with the margin as a tie one pair is won and one lost."""
    differences = np.array([0.011, *(0.0095 + 0.0001 * np.arange(8) / 8)])
    v = decide({"sine": Pairs(differences + 0.0005, arm_lost=1)}, RULE, "adamw")[0]
    assert v.verdict == Verdict.BETTER
    mirrored = decide({"sine": Pairs(-differences - 0.0005, baseline_lost=1)}, RULE, "adamw")[0]
    assert mirrored.verdict == Verdict.WORSE


def test_fewer_than_five_complete_pairs_leave_the_word_to_the_signs():
    """Two equal gains have no variance; ten wins are not enough among fifty arms."""
    family = {f"arm{k}": Pairs(np.zeros(10)) for k in range(49)}
    v = decide({"sine": Pairs(np.full(2, 0.02), baseline_lost=8), **family}, RULE, "adamw")[0]
    assert v.verdict == Verdict.INCONCLUSIVE
    assert v.p_difference == pytest.approx(50 * 2 / 2**10)


def test_runs_without_a_common_seed_are_compared_all_with_all():
    study = a_study(["adamw", "sine"], 6)
    tables = made({"adamw": [*runs(BASE[:3]), None], "sine": [None, None, None, *runs([0.95, 0.9, None])]}, study=study)
    v = judge(tables.tables())[0]
    assert v.verdict == Verdict.INCONCLUSIVE
    assert (v.n_pairs, v.n_pending, v.improvement.paired, v.improvement.n) == (0, 6, False, 3)
    assert v.improvement.probability == pytest.approx((3 + 1.5 + 0) / 9)


def test_both_runs_lost_is_a_tie():
    v = verdict_on([None, *(BASE[1:] + 0.02)], [None, *BASE[1:]])
    assert v.verdict == Verdict.BETTER
    assert "wins 9, ties 1 and loses 0" in v.reason


def test_a_completed_run_without_accuracy_is_lost_not_zero():
    v = verdict_on([Run(None), *BASE[1:]])
    assert (v.n_lost, v.n_pairs, v.difference) == (1, 9, 0.0)


accuracies = st.lists(st.one_of(st.integers(850, 950).map(lambda k: k / 1000), st.none()), min_size=6, max_size=10)


@given(accuracies, st.lists(st.integers(-30, 30), min_size=10, max_size=10), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_swapping_arm_and_baseline_mirrors_the_verdict(arm, noise, shift):
    other = [None if noise[k] == 30 else 0.9 + (noise[k] / 10 + shift) / 1000 for k in range(len(arm))]
    there, back = verdict_on(arm, other), verdict_on(other, arm)
    assert back.verdict == MIRROR.get(there.verdict, there.verdict)
    assert back.difference == (None if there.difference is None else pytest.approx(-there.difference))
    assert back.p_difference == pytest.approx(there.p_difference)
    assert back.improvement.probability == pytest.approx(1 - there.improvement.probability)
    assert back.improvement.interval == pytest.approx([1 - edge for edge in reversed(there.improvement.interval)])


@given(st.lists(st.integers(-30, 30), min_size=5, max_size=10), st.integers(-300, 50))
@settings(max_examples=40, deadline=None)
def test_a_constant_added_to_both_arms_changes_nothing(steps, constant):
    base = BASE[: len(steps)]
    arm = base + np.array(steps) / 1000
    plain, shifted = verdict_on(arm, base), verdict_on(arm + constant / 1000, base + constant / 1000)
    assert shifted.verdict == plain.verdict
    assert shifted.reason == plain.reason


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_changes_nothing(random):
    tables = made({"adamw": runs(BASE), "sine": runs([None, *BASE[1:] + 0.004])}, searched=True).tables()
    rows = tables.trials.to_pylist()
    random.shuffle(rows)
    shuffled = StudyTables(
        tables.study, {}, pa.Table.from_pylist(rows, schema=tables.trials.schema), tables.measurements
    )
    assert judge(shuffled) == judge(tables)
    assert arm_summaries(shuffled) == arm_summaries(tables)


def test_more_arms_ask_for_more_evidence():
    differences = 0.02 + 0.025 * np.array([1, -1] * 5)
    alone = decided(differences)
    noise = 0.05 * np.array([1, -1] * 5)
    family = decide({"sine": Pairs(differences), **{f"arm{k}": Pairs(noise) for k in range(9)}}, RULE, "adamw")
    assert alone.verdict == Verdict.BETTER
    assert family[0].verdict == Verdict.INCONCLUSIVE
    assert family[0].p_difference == pytest.approx(10 * alone.p_difference)
    assert family[0].smallest_detectable_effect > alone.smallest_detectable_effect


def test_an_arm_that_cannot_be_tested_stays_in_the_family():
    differences = 0.02 + 0.025 * np.array([1, -1] * 5)
    both = decide({"sine": Pairs(differences), "none": Pairs(np.array([]), pending=10)}, RULE, "adamw")
    assert both[0].p_difference == pytest.approx(2 * decided(differences).p_difference)
    assert both[1].p_difference is None


def test_search_rows_do_not_reach_the_verdict():
    by_arm = {"adamw": runs(BASE), "sine": runs(BASE + 0.02)}
    assert judge(made(by_arm, searched=True).tables()) == judge(made(by_arm).tables())


def test_summary_counts_endings_misses_and_both_clocks():
    arm = [*(Run(0.9, ratio=0.5) for _ in range(6)), Run(0.7, ratio=0.5), lost(), lost(), lost(Ending.FAILED)]
    base, sine = arm_summaries(made({"adamw": runs(BASE), "sine": arm}).tables())
    assert (sine.n_runs, sine.n_completed, sine.n_null) == (10, 7, 3)
    assert sine.endings == {"completed": 7, "diverged": 2, "failed": 1}
    assert (sine.epochs_to_target.hits, sine.epochs_to_target.n) == (6, 10)
    assert sine.seconds_to_target_circuits_free.median < sine.seconds_to_target.median
    assert sine.step_ratio == pytest.approx(0.5 * np.mean(1 / np.arange(1, 9)))
    assert (sine.learning_rate, sine.lambda_, sine.n_qubits) == (3e-3, 0.5, 4)
    assert (base.lambda_, base.step_ratio, base.overhead) == (None, None, None)
    assert sine.overhead == pytest.approx(0.45, abs=0.05)
    assert sine.overhead_interval.low < sine.overhead < sine.overhead_interval.high
    assert base.overhead_interval is None


def test_an_arm_that_mostly_misses_has_no_median_time():
    (_, sine) = arm_summaries(made({"adamw": runs(BASE), "sine": runs([0.9, 0.9, 0.5, 0.5, 0.5])}).tables())
    assert sine.epochs_to_target.median is None
    assert sine.epochs_to_target.hits == 2


def test_epochs_saved_count_a_miss_with_the_whole_budget():
    base, sine = (Run(0.9, speed=0.5), Run(0.9, speed=1.0))
    arm = [sine, sine, sine, Run(0.7), lost(), lost(Ending.LOST)]
    (none, summary) = arm_summaries(made({"adamw": [base] * 6, "sine": arm}).tables())
    budget, slow = 8, none.epochs_to_target.median
    quick = summary.epochs_to_target.interval.low
    assert none.epochs_saved is None
    assert (summary.epochs_saved.n_pairs, summary.epochs_saved.misses) == (5, 2)
    assert summary.epochs_saved.mean == pytest.approx((3 * (slow - quick) - 2 * (budget - slow)) / 5)


def test_an_arm_whose_whole_search_failed_is_not_waited_for():
    study = a_study(["adamw", "sine"], 6)
    rates = (1e-3, 2e-3)
    failed = [
        (search_trial(study, "sine", number, {"learning_rate": rate}), Outcome(Ending.DIVERGED))
        for number, rate in enumerate(rates)
    ]
    confirmed = made({"adamw": runs([0.9] * 6)}, study=study).trials
    (verdict,) = judge(Made(study, [*failed, *confirmed]).tables())
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.reason == "None of the 2 search trials of sine got a result, so there was nothing to confirm."


def test_two_confirmations_of_a_seed_are_refused():
    study = a_study(["adamw"], 1)
    twice = [
        (trial, Outcome(Ending.COMPLETED))
        for rate in (1e-3, 2e-3)
        for trial in confirm_trials(study, "adamw", {"learning_rate": rate})
    ]
    with pytest.raises(StudyError, match="more than one confirmation of adamw at a seed"):
        judge(Made(study, twice).tables())
