"""A metric that is negated, with its direction swapped, turns every figure round and leaves every verdict as it is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.own_metrics import by_penalty, by_score, scored
from support.planted_effects import map_tables, planted
from support.synthetic_results import RATE, a_study, lost, made, runs

from qsgd_ray.analysis import analyse, compare
from qsgd_ray.analysis.statistics import Interval
from qsgd_ray.config import Arm, Perturbation, Search
from qsgd_ray.reporting._all_figures import captioned_figures
from qsgd_ray.reporting.notebook import verdict_html, verdict_text
from qsgd_ray.reporting.page import render_page

ACCURACIES = st.one_of(st.none(), st.floats(0.5, 0.99).map(lambda x: round(x, 3)))


def both(tables):
    """Analyses of the same runs by a score, and by its mirror image."""
    return tuple(analyse(scored(tables, turn(tables.study))) for turn in (by_score, by_penalty))


def negated(interval):
    return interval and Interval(-interval.high, -interval.low)


def assert_mirrored_verdict(left, right):
    assert right.verdict is left.verdict
    assert right.difference == (left.difference if left.difference is None else -left.difference)
    assert right.interval == negated(left.interval)
    assert right.equivalence_interval == negated(left.equivalence_interval)
    names = ("arm", "margin", "n_pairs", "n_lost", "n_pending", "p_difference", "p_equivalence", "improvement")
    for name in (*names, "smallest_detectable_effect"):
        assert getattr(right, name) == getattr(left, name), name


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_verdicts_stay_and_differences_change_their_sign(data):
    n_seeds = data.draw(st.integers(1, 7))
    by_arm = {name: data.draw(st.lists(ACCURACIES, min_size=n_seeds, max_size=n_seeds)) for name in ("adam", "a", "b")}
    score, penalty = both(made({name: runs(values) for name, values in by_arm.items()}).tables())
    for left, right in zip(score.verdicts, penalty.verdicts, strict=True):
        assert_mirrored_verdict(left, right)
    for left, right in zip(score.ladders, penalty.ladders, strict=True):
        assert right.summary == left.summary
    assert penalty.headline == score.headline


BETTER = [0.84, 0.85, 0.86, 0.87, 0.85, 0.86, 0.84, 0.88]


@pytest.fixture(scope="module")
def searched():
    """Analyses of a study with a search, a better arm, a worse one and one that lost runs."""
    searched_sine = Perturbation(source="sine", lambda_=RATE)
    arms = [Arm(name=name, learning_rate=RATE, perturbation=searched_sine) for name in ("good", "bad", "shaky")]
    arms = (Arm(name="adam", learning_rate=RATE), *arms)
    study = a_study(["adam"], 8, arms=arms, search=Search(trials_per_arm=30, epochs=6))
    by_arm = {
        "adam": runs([value - 0.04 for value in BETTER]),
        "good": runs(BETTER),
        "bad": runs([value - 0.2 for value in BETTER]),
        "shaky": [*runs(BETTER[:6]), lost(), None],
    }
    return both(made(by_arm, study=study, searched=True).tables())


def test_a_clear_gain_and_a_clear_loss_are_called_so_in_the_metrics_words(searched):
    score, penalty = searched
    assert [v.verdict for v in penalty.verdicts] == ["better", "worse", "inconclusive"]
    assert "the score of good is 0.16 marks higher than that of adam" in score.verdicts[0].reason
    assert "the score of good is 0.16 marks lower than that of adam" in penalty.verdicts[0].reason
    assert "at least the margin of 0.04 marks" in penalty.verdicts[0].reason
    assert "the score of bad is 0.64 marks higher than that of adam" in penalty.verdicts[1].reason


def test_summaries_seeds_and_times_are_mirrored(searched):
    for left, right in zip(searched[0].summaries, searched[1].summaries, strict=True):
        assert right.iqm == pytest.approx(-left.iqm)
        assert [*right.iqm_interval] == pytest.approx([*negated(left.iqm_interval)])
        for name in ("epochs_to_target", "epochs_saved", "seconds_to_target", "n_null", "overhead"):
            assert getattr(right, name) == getattr(left, name), name
    assert any(s.epochs_to_target.hits and s.epochs_to_target.misses == 0 for s in searched[0].summaries)
    assert any(s.epochs_to_target.misses for s in searched[0].summaries)
    for left, right in zip(searched[0].seeds, searched[1].seeds, strict=True):
        assert right.values == {seed: -value for seed, value in left.values.items()}
        assert right.differences == {seed: -value for seed, value in left.differences.items()}
        assert (right.epochs, right.seconds) == (left.epochs, left.seconds)


def test_search_and_importance_are_mirrored(searched):
    score, penalty = searched
    assert penalty.importances == score.importances
    assert any(one.shares for one in score.importances)
    turned = {
        arm: tuple(replace(trial, value=trial.value and -trial.value) for trial in trials)
        for arm, trials in score.search_trials.items()
    }
    assert penalty.search_trials == turned
    assert penalty.endings == score.endings


def test_curves_and_profiles_are_mirrored(searched):
    score, penalty = searched
    for left, right in zip(score.learning_curves, penalty.learning_curves, strict=True):
        np.testing.assert_allclose(right.mean.mean, -left.mean.mean)
        np.testing.assert_allclose(right.mean.band[0], -left.mean.band[1])
        np.testing.assert_allclose(right.mean.band[1], -left.mean.band[0])
    np.testing.assert_allclose(penalty.profiles.thresholds, -np.array(score.profiles.thresholds)[::-1])
    for arm, left in score.profiles.by_arm.items():
        right = penalty.profiles.by_arm[arm]
        for name in ("share", "low", "high"):
            np.testing.assert_array_equal(getattr(right, name), getattr(left, name)[::-1])
        assert (right.n, right.n_null) == (left.n, left.n_null)


def test_a_map_is_mirrored():
    score, penalty = both(map_tables(planted))
    assert penalty.effect_map.verdict_counts == score.effect_map.verdict_counts
    assert {"worse"} < set(score.effect_map.verdict_counts)
    for left, right in zip(score.effect_map.cells, penalty.effect_map.cells, strict=True):
        assert_mirrored_verdict(left.effect, right.effect)
        assert (right.significant, right.overhead) == (left.significant, left.overhead)
    left, right = (captioned_figures(one)["effect-map"] for one in (score, penalty))
    assert_mirrored_numbers(left, right, "difference")
    assert list(right.figure.data[0].marker.color) == [-x for x in left.figure.data[0].marker.color]
    axes = [one.figure.layout.coloraxis for one in (left, right)]
    assert [axis.reversescale for axis in axes] == [None, True]
    assert [axis.colorbar.title.text for axis in axes] == ["marks", "marks"]


def test_a_comparison_of_two_studies_is_mirrored(searched):
    other = made({"adam": runs(BETTER), "good": runs([x - 0.01 for x in BETTER])}).tables()
    for_score, for_penalty = both(other)
    left, right = compare(searched[0], for_score), compare(searched[1], for_penalty)
    for one, turned in zip(left.arms, right.arms, strict=True):
        assert turned.difference == -one.difference
        assert [*turned.interval] == pytest.approx([*negated(one.interval)])
    assert [arm.difference for arm in compare(searched[0], analyse(other)).arms] == [None, None]


def assert_mirrored_numbers(left, right, *columns):
    """The tables of two figures differ in the signs of these columns alone."""
    assert (right.title, right.numbers.columns) == (left.title, left.numbers.columns)
    turn = {"+": "−", "−": "+"}
    for one, turned in zip(left.numbers.rows, right.numbers.rows, strict=True):
        for name, a, b in zip(left.numbers.columns, one, turned, strict=True):
            if name in columns and a != "–":
                assert b == turn.get(a[0], "−") + a.lstrip("+−") or b.lstrip("+−") == a.lstrip("+−") == "0"
            elif "interval" not in name:
                assert b == a


def test_figures_are_mirrored(searched):
    left, right = (captioned_figures(one) for one in searched)
    assert left.keys() == right.keys()
    for name in ("paired-differences", "final-accuracy"):
        for one, turned in zip(left[name].figure.data, right[name].figure.data, strict=True):
            if one.mode == "markers":
                np.testing.assert_allclose(np.array(turned.x, float), -np.array(one.x, float))
    for one, turned in zip(left["learning-curves"].figure.data, right["learning-curves"].figure.data, strict=True):
        if one.mode == "lines+markers":
            np.testing.assert_allclose(np.array(turned.y, float), -np.array(one.y, float))
    assert right["learning-curves"].figure.layout.shapes[0].y0 == -3.2
    assert right["search"].figure.layout.coloraxis.reversescale
    ranks = [[row[:3] for row in one["search"].numbers.rows] for one in (left, right)]
    assert ranks[0] == ranks[1]
    staircases = [[t for t in one["performance-profiles"].figure.data if t.name] for one in (left, right)]
    for one, turned in zip(*staircases, strict=True):
        assert (one.line.shape, turned.line.shape) == ("vh", "hv")
        assert list(turned.y) == list(one.y)[::-1]
    assert right["time-to-target"].numbers.rows == left["time-to-target"].numbers.rows


def test_page_and_text_name_the_metric_and_its_unit(searched):
    score, penalty = searched
    page = render_page(penalty)
    assert "by test score, of which less is better, on the same seeds" in page
    assert page.count("Less is better.") >= 4
    assert "Less is better." not in render_page(score)
    assert "<strong>−0.16</strong> marks" in page
    assert "percentage points" not in page
    assert "good: better, −0.16 marks (" in verdict_text(penalty.verdicts)
    assert "−0.16" in verdict_html(penalty.verdicts)
