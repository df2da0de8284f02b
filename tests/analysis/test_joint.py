"""Joint verdicts: laws of the mean in margins, and how often an arm without any effect is called."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.several import BASE, a_whole, jointly, mirrored, tables_of
from support.synthetic_results import lost

from qsgd_ray.analysis.joint import _decide_jointly, _joint_pairs, _WorkloadRuns, analyse_jointly, judge_jointly
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.analysis.verdict import Verdict, judge
from qsgd_ray.config import ACCURACY, Decision, Metric
from qsgd_ray.outcome import Ending

ACCURACIES = st.one_of(st.none(), st.floats(0.5, 0.99).map(lambda x: round(x, 3)))
NUMBERS = ("n_pairs", "n_lost", "n_pending", "improvement", "verdict")
FLOATS = ("difference", "p_difference", "p_equivalence", "smallest_detectable_effect")


def plus(gain, base=BASE):
    return [value + gain for value in base]


def assert_same_numbers(left, right, factor=1.0):
    """Two verdicts whose differences are equal up to the unit: left is `factor` times right."""
    assert [getattr(left, name) for name in NUMBERS] == [getattr(right, name) for name in NUMBERS]
    for name in FLOATS:
        a, b = getattr(left, name), getattr(right, name)
        scale = factor if name in ("difference", "smallest_detectable_effect") else 1.0
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(scale * b, rel=1e-6, abs=1e-9)


@st.composite
def accuracies(draw, arms=("adamw", "a", "b"), workloads=("easy", "hard")):
    """Accuracies of a study by workload and arm, and its number of seeds."""
    n = draw(st.integers(1, 7))
    values = {w: {arm: draw(st.lists(ACCURACIES, min_size=n, max_size=n)) for arm in arms} for w in workloads}
    return n, values


@settings(max_examples=10)
@given(accuracies())
def test_the_order_of_workloads_and_of_arms_changes_nothing(drawn):
    n, values = drawn
    study = a_whole(("adamw", "a", "b"), n)
    turned = study.model_copy(update={"workloads": dict(reversed(study.workloads.items()))})
    left, right = (judge_jointly(one, tables_of(one, values)) for one in (study, turned))
    for a, b in zip(left, right, strict=True):
        assert replace(a, reason="") == replace(b, reason="")
    other = a_whole(("adamw", "b", "a"), n)
    swapped = {verdict.arm: verdict for verdict in judge_jointly(other, tables_of(other, values))}
    for verdict in left:
        assert swapped[verdict.arm] == verdict


@settings(max_examples=10)
@given(accuracies(workloads=("easy",)))
def test_the_same_workload_twice_has_the_verdict_of_one(drawn):
    n, values = drawn
    study = a_whole(("adamw", "a", "b"), n)
    tables = tables_of(study, {"easy": values["easy"], "hard": values["easy"]})
    single = judge(tables["easy"])
    for joint, one in zip(judge_jointly(study, tables), single, strict=True):
        if one.n_pairs + one.n_lost == 0:
            one = replace(one, improvement=None)
        assert_same_numbers(joint, one, factor=1 / study.decision.margin)


@settings(max_examples=10)
@given(accuracies())
def test_a_metric_turned_round_turns_nothing_round(drawn):
    n, values = drawn
    study = a_whole(("adamw", "a", "b"), n)
    tables = tables_of(study, values)
    turned = {"easy": tables["easy"], "hard": mirrored(tables["hard"])}
    for left, right in zip(judge_jointly(study, tables), judge_jointly(study, turned), strict=True):
        assert_same_numbers(left, right)


def test_a_gain_on_each_is_better_and_a_loss_of_the_same_size_makes_up_for_it():
    study = a_whole()
    gain, none = plus(0.03), plus(0.001, (0.85, 0.84, 0.87, 0.86, 0.86, 0.85))
    both = jointly(study, {name: {"adamw": BASE, "sine": gain} for name in ("easy", "hard")})
    (verdict,) = both.verdicts
    assert (verdict.verdict, verdict.difference, verdict.margin) == (Verdict.BETTER, pytest.approx(3.0), 1.0)
    assert "the joint score of sine is 3 margins higher than that of adamw" in verdict.reason
    assert "at least one margin" in verdict.reason
    assert both.headline == "Over 2 workloads, of one arm against adamw: 1 better."
    loss = [2 * a - b for a, b in zip(BASE, gain, strict=True)]
    (verdict,) = jointly(study, {"easy": {"adamw": BASE, "sine": gain}, "hard": {"adamw": BASE, "sine": loss}}).verdicts
    assert (verdict.verdict, verdict.difference) == (Verdict.EQUIVALENT, 0.0)
    assert "within one margin" in verdict.reason
    cells = jointly(study, {"easy": {"adamw": BASE, "sine": gain}, "hard": {"adamw": BASE, "sine": none}}).cells
    assert [cells[name][0].verdict for name in cells] == [Verdict.BETTER, Verdict.INCONCLUSIVE]


def test_each_workload_counts_in_units_of_its_own_margin():
    study = a_whole(decision=Decision(margin=0.01, margins={"hard": 0.05}))
    (verdict,) = jointly(study, {n: {"adamw": BASE, "sine": plus(0.05)} for n in ("easy", "hard")}).verdicts
    assert verdict.difference == pytest.approx((5 + 1) / 2)


def test_the_table_is_corrected_over_all_arms_on_all_workloads():
    rng = np.random.default_rng(3)
    arms = ("adamw", "a", "b")
    values = {w: {arm: (0.8 + 0.01 * rng.standard_normal(6)).tolist() for arm in arms} for w in ("easy", "hard")}
    analysis = jointly(a_whole(arms), values)
    own = {name: part.verdicts for name, part in analysis.parts.items()}
    smallest = min(v.p_difference for verdicts in own.values() for v in verdicts)  # corrected over two
    in_table = min(v.p_difference for verdicts in analysis.cells.values() for v in verdicts)
    assert in_table == pytest.approx(min(1.0, 2 * smallest))
    for name, verdicts in own.items():
        for alone, cell in zip(verdicts, analysis.cells[name], strict=True):
            assert (alone.difference, alone.interval) == (cell.difference, cell.interval)
            assert cell.p_difference >= alone.p_difference
            assert cell.smallest_detectable_effect > alone.smallest_detectable_effect


def test_seeds_that_are_complete_in_all_workloads_count_and_the_reason_says_how_many():
    study = a_whole()
    values = {
        "easy": {"adamw": BASE, "sine": [*plus(0.03)[:5], None]},
        "hard": {"adamw": BASE, "sine": [None, *plus(0.03)[1:]]},
    }
    (verdict,) = jointly(study, values).verdicts
    assert (verdict.n_pairs, verdict.n_lost, verdict.n_pending) == (4, 2, 0)
    assert verdict.reason.endswith("Complete in all 2 workloads: 4 of 6 seeds (easy 5, hard 5).")
    pending = {"easy": {"adamw": BASE, "sine": BASE}, "hard": {"adamw": BASE, "sine": [*BASE[:5], lost(Ending.LOST)]}}
    (verdict,) = jointly(study, pending).verdicts
    assert (verdict.n_pairs, verdict.n_pending, verdict.verdict) == (5, 1, Verdict.INCONCLUSIVE)
    assert "Only 5 of 6 planned pairs of runs have ended" in verdict.reason


@pytest.mark.parametrize(
    ("easy", "hard", "lack"),
    [
        ((None, 1.0), (1.0, 1.0), "arm_lost"),
        ((1.0, None), (1.0, 1.0), "baseline_lost"),
        ((None, 1.0), (1.0, None), "both_lost"),
        ((None, None), (1.0, 1.0), "both_lost"),
        ((None, None), (None, 1.0), "arm_lost"),
        ((None, 1.0), None, "pending"),
        (None, (1.0, 1.0), "pending"),
    ],
)
def test_a_run_without_a_result_loses_its_seed_however_it_went_elsewhere(easy, hard, lack):
    pairs = _joint_pairs([_WorkloadRuns({1: runs}, ACCURACY, 0.01) for runs in (easy, hard)])
    counts = {name: getattr(pairs, name) for name in ("arm_lost", "baseline_lost", "both_lost", "pending")}
    assert pairs.n == 0
    assert counts == {name: int(name == lack) for name in counts}


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=9),
    st.floats(0.01, 0.5),
    st.floats(0.05, 20),
)
def test_joint_scores_are_the_plain_means_in_margins(values, share_margin, loss_margin):
    shares = _WorkloadRuns({k: (a, b) for k, (a, b, _, _) in enumerate(values)}, ACCURACY, share_margin)
    loss = Metric("loss", direction="min")
    losses = _WorkloadRuns({k: (a, b) for k, (_, _, a, b) in enumerate(values)}, loss, loss_margin)
    plain = [((a - b) / share_margin - (c - d) / loss_margin) / 2 for a, b, c, d in values]
    np.testing.assert_allclose(_joint_pairs([shares, losses]).differences, plain, atol=1e-6)


def test_studies_without_rows_and_without_another_arm_have_a_joint_verdict():
    empty = jointly(a_whole(), {name: {"adamw": [], "sine": []} for name in ("easy", "hard")})
    assert [v.verdict for v in empty.verdicts] == [Verdict.INCONCLUSIVE]
    alone = jointly(a_whole(("adamw",)), {name: {"adamw": BASE} for name in ("easy", "hard")})
    assert (alone.verdicts, alone.cells) == ((), {"easy": (), "hard": ()})
    assert "nothing to compare" in alone.headline


def test_notes_of_parts_bear_their_workloads_name():
    study = a_whole()
    tables = tables_of(study, {name: {"adamw": BASE, "sine": BASE} for name in ("easy", "hard")})
    parts = {"easy": analyse(tables["easy"]), "hard": analyse(replace(tables["hard"], n_others=2))}
    notes = analyse_jointly(study, parts, ["changed"]).notes
    assert notes[0] == "changed"
    assert [note.startswith("hard: 2 trials lie beside") for note in notes[1:]] == [True]


@pytest.mark.parametrize("margin_in_deviations", [0.01, pytest.param(0.5, marks=pytest.mark.slow)])
def test_an_arm_without_any_effect_is_called_as_rarely_as_alpha_says(margin_in_deviations):
    """Three arms on three workloads with spreads of 1, 3 and 10 margins' units, ten seeds, 300 studies.

    At a margin of nothing the level is Holm's 5 %: more than 32 false studies of 300 has odds of 1 in 40,000.
    """
    rng = np.random.default_rng(17)
    study, false = a_whole(("adamw", "a", "b", "c")), 0
    spreads = np.array([1.0, 3.0, 10.0]) / margin_in_deviations
    for _ in range(300):
        noise = rng.standard_normal((3, 4, 10)) * spreads[:, None, None]
        scores = (noise[:, 1:] - noise[:, :1]).mean(axis=0)  # arms share the baseline's runs
        pairs = {name: Pairs(of_arm) for name, of_arm in zip("abc", scores, strict=True)}
        false += any(v.verdict in (Verdict.BETTER, Verdict.WORSE) for v in _decide_jointly(pairs, study))
    assert false <= 32
