"""Verdicts on rows of others are those of a study; a metric turned round turns them round; bad input is one line."""

import math
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scores import EFFECTS, RULE, score_rows
from support.synthetic_results import Run, lost, made, runs

from qsgd_ray import judge
from qsgd_ray.analysis.pairs import Pairs
from qsgd_ray.analysis.verdict import Verdict, decide
from qsgd_ray.analysis.verdict import judge as judge_study
from qsgd_ray.config import Decision, Metric, StudyError
from qsgd_ray.outcome import Ending

BASE = 0.9 + np.array([0, 8, -7, 3, -2, 5, -6, 1, -4, 2]) / 1000
ROWS = score_rows(EFFECTS)


def words(judgement) -> dict[str, str]:
    return {v.arm: v.verdict.value for v in judgement}


def test_planted_effects_are_found_where_less_is_better():
    judgement = judge(ROWS, **RULE)
    assert words(judgement) == {"muon": "better", "same": "equivalent", "lion": "worse"}
    muon, _, lion = judgement
    assert muon.difference == pytest.approx(-0.2, abs=0.02)
    assert muon.interval.low < -0.2 < muon.interval.high
    assert muon.improvement.probability == 1.0
    assert lion.improvement.probability == 0.0
    assert "score of muon is 0.19" in muon.reason
    assert "lower than that of adamw (lower is better)" in muon.reason
    assert words(judge(ROWS, **RULE | {"direction": "max"})) == {
        "muon": "worse",
        "same": "equivalent",
        "lion": "better",
    }


def test_a_study_s_rows_have_the_study_s_verdicts_number_for_number():
    study = made(
        {
            "adamw": runs(BASE),
            "same": runs(BASE + 0.001 * np.array([1, -1] * 5)),
            "gain": runs(BASE + 0.03 + 0.001 * np.array([2, -1] * 5)),
            "wild": [Run(0.91), Run(0.6), lost(), lost(Ending.FAILED), *runs(BASE[4:])],
            "late": [*runs(BASE[:9]), lost(Ending.LOST)],
        }
    ).tables()
    confirmed = study.trials.filter(pc.equal(study.trials["stage"], "confirm"))
    judged = judge(confirmed, baseline="adamw", margin=0.01, score="test_accuracy", kind="share")
    for ours, theirs in zip(judged, judge_study(study), strict=True):
        mine = ours.metric
        assert (mine.name, mine.direction, mine.kind, mine.unit) == ("test_accuracy", "max", "share", "")
        words = {"reason": "", "metric": None}  # a study's metric has a target too
        assert vars(ours) | words == vars(theirs) | words


scores = st.lists(st.one_of(st.none(), st.integers(-40, 40).map(lambda x: x / 16)), min_size=6, max_size=8)


def table_of(arm, baseline, other):
    columns = zip(range(8), arm, baseline, other, strict=False)
    return [
        {"arm": name, "seed": seed, "score": score}
        for seed, *of_arms in columns
        for name, score in zip(("a", "b", "c"), of_arms, strict=True)
    ]


def mirrored(verdict):
    return {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}.get(verdict, verdict)


@settings(max_examples=25, deadline=None)
@given(scores, scores, scores)
def test_negated_scores_and_the_other_direction_give_the_same_verdicts_and_negated_differences(arm, baseline, other):
    rows = table_of(arm, baseline, other)
    negated = [row | {"score": None if row["score"] is None else -row["score"]} for row in rows]
    high = judge(rows, baseline="b", margin=0.25)
    low = judge(negated, baseline="b", margin=0.25, direction="min")
    for up, down in zip(high, low, strict=True):
        assert up.verdict == down.verdict
        assert (up.p_difference, up.p_equivalence) == (down.p_difference, down.p_equivalence)
        assert up.improvement == down.improvement
        assert up.smallest_detectable_effect == down.smallest_detectable_effect
        assert (None if up.difference is None else -up.difference) == down.difference
        assert (None if up.interval is None else (-up.interval.high, -up.interval.low)) == down.interval


@settings(max_examples=25, deadline=None)
@given(scores, scores, scores)
def test_the_other_direction_alone_exchanges_better_and_worse_where_no_pair_is_lost(arm, baseline, other):
    rows = [row for row in table_of(arm, baseline, other) if row["score"] is not None]
    up, down = (
        (judge(rows, baseline="b", margin=0.25, direction=each, missing="drop") for each in ("max", "min"))
        if {row["arm"] for row in rows} >= {"a", "b"}
        else ((), ())
    )
    for left, right in zip(up, down, strict=True):
        assert left.verdict == mirrored(right.verdict)
        assert left.difference == right.difference


@settings(max_examples=20, deadline=None)
@given(scores, scores, scores, st.randoms(use_true_random=False))
def test_the_order_of_rows_cannot_show(arm, baseline, other, random):
    rows = table_of(arm, baseline, other)
    shuffled = random.sample(rows, len(rows))
    left, right = ({v.arm: v for v in judge(each, baseline="b", margin=0.25)} for each in (rows, shuffled))
    assert left == right


@settings(max_examples=20, deadline=None)
@given(scores, scores, scores, st.integers(-200, 200))
def test_the_unit_of_the_scores_cannot_show(arm, baseline, other, power):
    rows, factor = table_of(arm, baseline, other), 2.0**power
    scaled = [row | {"score": None if row["score"] is None else factor * row["score"]} for row in rows]
    for left, right in zip(
        judge(rows, baseline="b", margin=0.25), judge(scaled, baseline="b", margin=0.25 * factor), strict=True
    ):
        assert left.verdict == right.verdict
        assert left.p_difference == right.p_difference
        assert (None if left.difference is None else factor * left.difference) == right.difference


def test_an_arm_against_itself_is_equivalent_and_has_a_difference_without_a_sign():
    rows = [row for row in ROWS if row["arm"] == "adamw"]
    [verdict] = judge([*rows, *(row | {"arm": "again"} for row in rows)], **RULE)
    assert verdict.verdict == Verdict.EQUIVALENT
    assert math.copysign(1, verdict.difference) == math.copysign(1, verdict.interval.low) == 1


def test_a_run_without_a_finite_score_counts_against_its_arm_and_is_told():
    rows = score_rows({"adamw": 0.0, "lion": 0.0}, 6)
    for row in rows:
        if row["arm"] == "lion":
            row["score"] = {1: None, 2: math.nan, 3: math.inf}.get(row["seed"], 99.0)
    judgement = judge(rows, **RULE)
    assert words(judgement) == {"lion": "worse"}
    assert "3 of 6 pairs have a run without a result (3 of lion, 0 of adamw)" in judgement.verdicts[0].reason
    assert judgement.analysis.scores.notes == ("3 runs without a finite score count as no result.",)
    assert [s.n_null for s in judgement.analysis.summaries] == [0, 3]


def test_a_seed_without_a_row_awaits_it_unless_it_is_told_otherwise():
    rows = [row for row in ROWS if not (row["arm"] == "muon" and row["seed"] in (3, 8))]
    pending = judge(rows, **RULE)
    assert words(pending)["muon"] == "inconclusive"
    assert "Only 6 of 8 pairs of runs have ended" in pending.verdicts[0].reason
    assert "muon has no row at seed 3, 8" in pending.verdicts[0].reason
    assert not pending.document["finished"]
    dropped = judge(rows, **RULE, missing="drop").verdicts[0]
    assert (dropped.verdict, dropped.n_pairs, dropped.n_lost) == (Verdict.BETTER, 6, 0)
    counted = judge(rows, **RULE, missing="lost").verdicts[0]
    assert (counted.n_pairs, counted.n_lost) == (6, 2)


def test_where_no_pair_has_ended_runs_are_compared_with_all_runs():
    rows = [{"arm": arm, "seed": seed, "score": score} for arm, seed, score in (("a", 1, 3e30), ("b", 2, 1e30))]
    [verdict] = judge(rows, baseline="a", margin=0.1, direction="min")
    assert (verdict.verdict, verdict.difference) == (Verdict.INCONCLUSIVE, None)
    assert (verdict.improvement.probability, verdict.improvement.paired) == (1.0, False)


def test_fewer_than_five_pairs_explore():
    [verdict] = judge(score_rows({"adamw": 0.0, "muon": -1.0}, 4), **RULE)
    assert (verdict.verdict, verdict.reason) == (
        Verdict.INCONCLUSIVE,
        "There are 4 of the 5 pairs of runs that a verdict needs at least.",
    )


def test_every_branch_of_the_rule_has_its_reason():
    def said(differences, **fields):
        rows = [{"arm": "b", "seed": i, "score": 1.0} for i in range(len(differences))]
        rows += [{"arm": "a", "seed": i, "score": 1.0 + d} for i, d in enumerate(differences)]
        return judge(rows, baseline="b", margin=0.01, unit="nats", **fields).verdicts[0].reason

    wiggle = np.array([1, -1] * 5)
    assert "+0.003 nats is real" in said(0.003 + wiggle / 1000)
    assert "stays within the margin of 0.010 nats" in said(wiggle / 1000)
    assert "every pair shows the same" in said(np.zeros(10))
    assert "cannot tell whether it exceeds the margin of 0.010 nats" in said(0.0095 + 3 * wiggle / 1000)
    assert "Neither a difference" in said(wiggle / 20)
    assert "so equivalence is not supported" in said(np.array([11, -11] * 3) / 1000)
    assert "0.030 nats higher than that of b (higher is better)" in said(0.03 + wiggle / 1000)
    assert "probably overstated" in said(0.02 + 0.0234 * np.linspace(-1, 1, 6))
    assert "No run of a got a result." in said(np.full(6, math.nan))
    assert "which chance explains as well" in said(np.array([0.1, -0.1, 0.1, -0.1, 0.1, math.nan]))


def test_a_judgement_prints_a_line_an_arm_and_a_list_for_a_notebook():
    judgement = judge(ROWS, **RULE, unit="nats")
    lines = repr(judgement).splitlines()
    assert [line.split(",")[0] for line in lines] == ["muon: better", "same: equivalent", "lion: worse"]
    assert lines[0].startswith("muon: better, −0.199 nats (−0.206 to −0.192). Over 8 pairs")
    html = judge([row | {"arm": row["arm"].replace("muon", "<b>")} for row in ROWS], **RULE)._repr_html_()
    assert "<li>&lt;b&gt;: better" in html


def test_shares_are_shown_in_points():
    rows = [row | {"score": row["score"] / 4} for row in ROWS]
    reason = judge(rows, baseline="adamw", margin=0.01, kind="share").verdicts[0].reason
    assert " points lower than that of adamw (higher is better)" in reason
    assert "the margin of 1.00 points" in reason


TABLE = pd.DataFrame(ROWS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"margin": 0}, "margin: got 0; allowed: a number above 0"),
        ({"margin": math.nan}, "margin: got nan; allowed: a number above 0"),
        ({"margin": "1"}, "margin: got '1'; allowed: a number above 0"),
        ({"margin": True}, "margin: got True; allowed: a number above 0"),
        ({"margin": 1.0, "kind": "share"}, "margin: got 1.0; allowed: a number above 0 and below 1, as scores are"),
        ({"kind": "share"}, "score: got 1.9065632675183737 of arm adamw at seed 1; allowed: a share from 0 to 1, or"),
        ({"alpha": 0.5}, "alpha: got 0.5; allowed: less than 0.5"),
        ({"power": 0.1}, "power: got 0.1; allowed: greater than 0.5"),
        ({"direction": "up"}, "direction: got 'up'; allowed: None, 'max', 'min'"),
        ({"kind": "loss"}, "kind: got 'loss'; allowed: 'mean', 'share'"),
        ({"missing": "ignore"}, "missing: got 'ignore'; allowed: 'pending', 'lost', 'drop'"),
        ({"baseline": "adam"}, "baseline: got 'adam'; allowed: an arm of the table (adamw, muon, same, lion)"),
        ({"unit": 3}, "unit: got 3; allowed: a text"),
        ({"arm": "optimizer"}, "arm: got 'optimizer'; allowed: a column (arm, seed, score)"),
        ({"where": {"arm": "adamw"}}, "arm: got 'adamw' alone; allowed: at least two arms, one of them the baseline"),
        ({"where": {"seed": 99}}, "table: got no row with seed=99; allowed: a row for each run"),
        ({"margin": 1e-99, "where": {"seed": 1}}, None),
    ],
)
def test_a_wrong_argument_is_one_line(changes, said):
    if said is None:
        judge(TABLE, **RULE | changes)
        return
    with pytest.raises(StudyError) as error:
        judge(TABLE, **RULE | changes)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_score_that_leaves_no_digit_for_a_difference_is_one_line():
    rows = [row | {"score": 1e200} for row in ROWS]
    with pytest.raises(StudyError, match=r"score: got 1e\+200 of arm adamw at seed 1; allowed: up to 1e\+100 times"):
        judge(rows, **RULE)


def test_a_format_that_is_none_is_one_line():
    with pytest.raises(StudyError, match="format: got 'xml'; allowed: json, csv, markdown, latex"):
        judge(ROWS, **RULE).format("xml")


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"path: got .*allowed: a file that can be written"):
        judge(ROWS, **RULE).report(tmp_path / "file" / "page.html")


def test_the_same_scores_in_an_arrow_table_and_in_a_data_frame_have_one_verdict():
    assert (
        judge(pa.Table.from_pylist(ROWS), **RULE).verdicts
        == judge(TABLE, **RULE).verdicts
        == judge(ROWS, **RULE).verdicts
    )


@settings(max_examples=60, deadline=None)
@given(
    gain=st.sampled_from([0.0, 0.004, 0.011, -0.03]),
    noise=st.sampled_from([0.0002, 0.004, 0.02]),
    lost=st.integers(0, 2),
    number=st.integers(0, 9),
    direction=st.sampled_from(["max", "min"]),
)
def test_scores_and_studies_give_their_reasons_in_the_same_words(gain, noise, lost, number, direction):
    rng = np.random.default_rng(number)
    right = 2 + rng.normal(0, 0.1, 8)
    left = right + gain + rng.normal(0, noise, 8)
    scores = [None] * lost + [float(value) for value in left[lost:]]
    rows = [{"arm": "b", "seed": seed, "score": value} for seed, value in enumerate(right.tolist())]
    rows += [{"arm": "a", "seed": seed, "score": value} for seed, value in enumerate(scores)]
    [of_scores] = judge(rows, baseline="b", margin=0.01, direction=direction, unit="nats")
    pairs = Pairs(left[lost:] - right[lost:], arm_lost=lost)
    [of_study] = decide({"a": pairs}, Decision(margin=0.01), "b", Metric("score", direction=direction, unit="nats"))

    def without_numbers(reason: str) -> str:
        return re.sub(r"[+−]?\d[\d.]*", "#", re.sub(r" \((higher|lower) is better\)", "", reason))

    assert of_scores.verdict == of_study.verdict
    assert without_numbers(of_scores.reason) == without_numbers(of_study.reason)
