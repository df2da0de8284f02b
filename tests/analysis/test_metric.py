"""Values of a metric: where rows have them, how they are written, and a study that decides by its loss."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_results import a_study, lost, made, runs

from qsgd_ray.analysis import analyse, compare
from qsgd_ray.analysis._claims_in_words import _edge
from qsgd_ray.analysis.metric import _metric_column, amount_text, measured_value, metric_value, number_text
from qsgd_ray.analysis.pairs import Pairs, pair_by_seed
from qsgd_ray.analysis.verdict import Verdict, decide
from qsgd_ray.config import ACCURACY, Claim, Decision, Metric, StudyError
from qsgd_ray.outcome import Ending
from qsgd_ray.reporting._all_figures import captioned_figures
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.reporting.page import render_page
from qsgd_ray.reporting.terminal import arms_table, study_report

LOSS = Metric("loss", direction="min", unit="nats")
ENERGY = Metric("energy", direction="min", unit="Hartree")
ROW = {
    "trial_id": "confirm-a-s1-0",
    "validation_accuracy": 0.9,
    "validation_loss": 0.3,
    "test_accuracy": None,
    "test_loss": 0.4,
    "metrics": json.dumps({"validation": {"energy": -1.5}, "test": {"energy": -1}}),
}


def test_accuracy_and_loss_stand_in_columns_and_others_in_json():
    assert [metric_value(ROW, "validation", m) for m in (ACCURACY, LOSS, ENERGY)] == [0.9, 0.3, -1.5]
    assert [metric_value(ROW, "test", m) for m in (ACCURACY, LOSS, ENERGY)] == [None, 0.4, -1.0]


@pytest.mark.parametrize(
    "text", [None, "{}", '{"validation": null}', '{"validation": {}}', '{"validation": {"energy": null}}']
)
def test_a_metric_that_is_not_there_is_none(text):
    assert metric_value(ROW | {"metrics": text}, "validation", ENERGY) is None
    assert metric_value({name: value for name, value in ROW.items() if name != "metrics"}, "test", ENERGY) is None


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"test": [2]}', '{"test": {"energy": "low"}}', '{"test": {"energy": []}}']
)
def test_metrics_that_cannot_be_read_are_one_line_with_the_trial(text):
    with pytest.raises(StudyError, match="the row of confirm-a-s1-0: got metrics that cannot be read; allowed: JSON"):
        metric_value(ROW | {"metrics": text}, "test", ENERGY)


def test_a_running_trial_has_its_metrics_too():
    class Last:
        validation_accuracy, validation_loss, metrics = 0.5, 0.7, {"energy": -2.0}

    assert [measured_value(Last(), m) for m in (ACCURACY, LOSS, ENERGY)] == [0.5, 0.7, -2.0]
    assert measured_value(Last(), Metric("other")) is None


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.0123, ACCURACY, "+1.23 points"),
        (-0.0123, LOSS, "−0.0123 nats"),
        (0.000012345, LOSS, "+1.234e−05 nats"),
        (1234567.0, Metric("steps", unit="steps"), "+1,235,000 steps"),
        (2.0, Metric("score"), "+2"),
    ],
)
def test_differences_are_written_in_the_metrics_unit(value, metric, text):
    assert amount_text(value, metric, sign=True) == text
    assert number_text(value, metric, sign=True) == text.partition(" ")[0]


@given(
    st.lists(st.integers(-50, 50), min_size=5, max_size=8), st.sampled_from([1e-12, 1e-6, 1.0, 1e6, 1e15]), st.data()
)
def test_the_size_of_a_metrics_unit_changes_no_verdict(gains, size, data):
    other = data.draw(st.lists(st.integers(-50, 50), min_size=len(gains), max_size=len(gains)))
    verdicts = []
    for unit in (1.0, size):
        metric = Metric("score")
        pairs = {
            name: pair_by_seed(rows(values, unit), rows([100] * len(values), unit), range(len(values)), metric, "test")
            for name, values in (("a", [100 + gain for gain in gains]), ("b", [100 + gain for gain in other]))
        }
        verdicts.append(decide(pairs, Decision(margin=10 * unit), "base", metric))
    for left, right in zip(*verdicts, strict=True):
        assert right.verdict is left.verdict
        assert right.difference == pytest.approx(left.difference * size)
        assert right.p_difference == pytest.approx(left.p_difference, rel=1e-6, abs=1e-12)


def rows(values, unit):
    """Completed runs of these scores, in a unit."""
    return [
        {
            "trial_id": "x",
            "seed": seed,
            "ending": str(Ending.COMPLETED),
            "error": None,
            "metrics": json.dumps({"test": {"score": value * unit}}),
        }
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("difference", "verdict", "words"),
    [
        (-0.2, Verdict.BETTER, "the loss of sine is 0.2 nats lower than that of adam"),
        (0.2, Verdict.WORSE, "the loss of sine is 0.2 nats higher than that of adam"),
    ],
)
def test_a_smaller_loss_is_better(difference, verdict, words):
    noise = np.array([1, -1, 2, -2, 0, 1, -1]) / 1000
    (judged,) = decide({"sine": Pairs(difference + noise)}, Decision(metric="loss", margin=0.1), "adam", LOSS)
    assert (judged.verdict, judged.difference, judged.metric) == (verdict, difference, LOSS)
    assert judged.interval.low < difference < judged.interval.high
    assert words in judged.reason
    assert "at least the margin of 0.1 nats" in judged.reason


def test_an_error_rate_is_told_in_points():
    error = Metric("error_rate", kind="share", direction="min")
    gain = Pairs(np.array([-0.031, -0.029, -0.030, -0.032, -0.028, -0.030]))
    (judged,) = decide({"sine": gain}, Decision(margin=0.01), "adam", error)
    assert judged.verdict is Verdict.BETTER
    assert "the error rate of sine is 3.00 points lower than that of adam" in judged.reason


def test_measurements_without_the_column_have_no_values():
    curve = made({"adam": runs([0.8])}).tables().measurements
    assert np.isnan(_metric_column(curve, ENERGY)).all()
    assert len(_metric_column(curve, ENERGY)) == curve.num_rows


def test_runs_without_a_result_lose_whichever_way_the_metric_goes():
    for metric in (ACCURACY, LOSS):
        (judged,) = decide({"sine": Pairs(np.zeros(0), arm_lost=10)}, Decision(margin=0.1), "adam", metric)
        assert judged.verdict is Verdict.WORSE


BASE = [0.80, 0.81, 0.82, 0.83, 0.81, 0.82]


@pytest.fixture(scope="module")
def by_loss():
    study = a_study(["adam", "sine", "shaky"], 6, decision=Decision(metric="loss", margin=0.02))
    by_arm = {"adam": runs(BASE), "sine": runs([x + 0.05 for x in BASE]), "shaky": [*runs(BASE[:5]), lost()]}
    return analyse(made(by_arm, study=study, searched=True).tables())


def test_a_study_by_its_loss_has_a_verdict_but_no_time_to_target(by_loss):
    sine = by_loss.verdicts[0]
    assert (sine.verdict, sine.difference) == (Verdict.BETTER, -0.05)
    assert by_loss.summaries[0].iqm == pytest.approx(2 - np.mean(sorted(BASE)[1:-1]))
    assert all((s.epochs_to_target.n, s.seconds_to_target.n, s.epochs_saved) == (0, 0, None) for s in by_loss.summaries)
    assert all(not seeds.epochs.hits and not seeds.epochs.misses for seeds in by_loss.seeds)
    figures = captioned_figures(by_loss)
    assert "time-to-target" not in figures
    assert "target" not in figures["learning-curves"].caption
    assert figures["final-accuracy"].figure.layout.xaxis.title.text == "test loss (nats)"
    assert figures["paired-differences"].figure.layout.xaxis.title.text == "difference to the baseline (nats)"


def test_page_and_terminal_of_a_study_by_its_loss_speak_of_loss(by_loss):
    page = render_page(by_loss)
    assert "interquartile mean of test loss in nats" in page
    assert "epochs to target" not in page
    assert "percentage points" not in page
    console = plain_console()
    with console.capture() as captured:
        for part in study_report(by_loss):
            console.print(part)
    text = captured.get()
    assert "test loss nats" in text
    assert "missed" not in text
    assert "Differences in nats of test loss; margin 0.02, alpha 0.05. Less is better." in " ".join(text.split())


def test_studies_by_different_metrics_are_compared_without_a_difference(by_loss):
    by_accuracy = analyse(made({"adam": runs(BASE), "sine": runs(BASE)}).tables())
    comparison = compare(by_accuracy, by_loss)
    assert [arm.difference for arm in comparison.arms] == [None, None]
    assert arms_table(comparison).title == "The same arms: test results by accuracy (%) and loss (nats), DIR1 and DIR2"
    assert arms_table(compare(by_loss, by_loss)).title.startswith("The same arms: test results by loss (nats), DIR1")
    assert [arm.difference for arm in compare(by_loss, by_loss).arms] == [0.0, 0.0, 0.0]


def test_a_margin_of_another_metric_is_no_margin_of_a_claim():
    by_accuracy = a_study(["adam", "sine"], 6, decision=Decision(margin=0.3))
    decides_by_loss = a_study(["adam", "sine"], 6, decision=Decision(metric="loss", margin=0.3))
    assert [_edge("-margin", study, ACCURACY) for study in (by_accuracy, decides_by_loss)] == [-0.3, 0.0]
    assert [_edge("margin", study, LOSS) for study in (by_accuracy, decides_by_loss)] == [0.0, 0.3]


def test_a_claim_without_a_metric_is_about_the_one_that_decides():
    claims = (
        Claim(name="A", text="it is better", contrast="sine", measure="difference", claimed=-0.05),
        Claim(name="B", text="it is right", contrast="sine", measure="difference", metric="accuracy", claimed=0.05),
        Claim(name="C", text="it is fast", contrast="sine", measure="epochs_to_target_change", claimed=-0.1),
    )
    study = a_study(["adam", "sine"], 6, decision=Decision(metric="loss", margin=0.02), claims=claims)
    tables = made({"adam": runs(BASE), "sine": runs([x + 0.05 for x in BASE])}, study=study).tables()
    of_loss, of_accuracy, of_time = analyse(tables).claims
    assert (of_loss.unit, of_loss.measured, of_loss.finding) == ("nats", pytest.approx(-0.05), "supported")
    assert (of_accuracy.unit, of_accuracy.measured) == ("points", pytest.approx(0.05))
    assert of_time.finding == "not measured"  # a loss has no target


def test_points_are_the_unit_of_a_share_alone():
    claim = Claim(name="A", text="it is better", contrast="sine", measure="difference", claimed=0.05, unit="points")
    with pytest.raises(StudyError, match=r"claims\.A\.unit: another than points with the metric loss; got 'points'"):
        a_study(["adam", "sine"], 6, decision=Decision(metric="loss", margin=0.02), claims=(claim,))
