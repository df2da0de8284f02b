"""Claims of any kind: two arms, cells of a map, an axis of it; figures in their units, and words with their rules."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.planted_effects import map_tables, planted
from support.synthetic_results import a_study, made, runs

from qsgd_ray.analysis.claim import Finding
from qsgd_ray.analysis.claims import check_claims
from qsgd_ray.config import UNITS, Claim, ClaimPart, Contrast, Expectation, study_from_tree
from qsgd_ray.results import StudyTables
from qsgd_ray.results.schema import TRIALS


def two_arms(n: int, gain: float = 0.0, *others: str) -> StudyTables:
    """Return n paired runs of adam and of sines that are better by the gain."""
    rng = np.random.default_rng(3)
    by_arm = {"adam": runs(0.85 + rng.normal(0, 0.003, n))}
    by_arm |= {name: runs(0.85 + gain + rng.normal(0, 0.003, n)) for name in ("sine", *others)}
    return made(by_arm, study=a_study([*by_arm], max(n, 5))).tables()


TWENTY = two_arms(20, 0.02, "other")


def asked(tables: StudyTables, **fields):
    """Return a claim of the tables' study, checked."""
    given = {"name": "A", "text": "it is better", "contrast": "sine", "measure": "difference"} | fields
    study = tables.study.model_copy(update={"claims": (Claim(**given),)})
    study = study_from_tree(study.model_dump(mode="json"))  # checked as one that is made so
    [claim] = check_claims(StudyTables(study, {}, tables.trials, tables.measurements))
    return claim


def in_words(tables: StudyTables, *expects: Expectation, rule="all", **fields):
    return asked(tables, parts=(ClaimPart(expects=expects, rule=rule),), **fields)


def test_any_two_arms_can_be_compared():
    tables = TWENTY
    claim = asked(tables, contrast=Contrast(arm="sine", against="other"), claimed=0.02)
    assert (claim.arm, claim.against, claim.unit) == ("sine", "other", "points")
    assert claim.measured == pytest.approx(0.0, abs=0.003)
    assert claim.finding is Finding.CONTRADICTED
    baseline = Contrast(arm="adam", against="sine")
    assert asked(tables, contrast=baseline, claimed=-0.02).measured == pytest.approx(-0.02, abs=0.003)


PAIRED_MEASURES = st.sampled_from([name for name in (*UNITS, "difference") if name != "lost_runs"])
FIGURES = st.lists(st.floats(0.1, 0.9), min_size=5, max_size=5)
FIVE = two_arms(5)


def with_figures(figures: dict[str, list[float]]) -> StudyTables:
    """Five pairs of runs of which every column that a claim measures is made of the arm's figures."""
    rows = []
    for row in FIVE.trials.to_pylist():
        figure = figures[row["arm"]][row["seed"] - 100]
        names = ("test_accuracy", "mean_train_loss", "wall_s", "seconds_to_target")
        rows.append(row | dict.fromkeys(names, figure) | {"epochs_to_target": 1 + int(5 * figure)})
    return StudyTables(FIVE.study, {}, pa.Table.from_pylist(rows, schema=TRIALS), FIVE.measurements)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(PAIRED_MEASURES, FIGURES, FIGURES)
def test_the_other_way_round_a_figure_has_the_other_sign(measure, left, right):
    """A difference changes its sign, and so does its claim; the ratio behind a change is the reciprocal."""
    tables = with_figures({"adam": left, "sine": right})
    there = asked(tables, measure=measure, claimed=0.2)
    back = asked(tables, measure=measure, claimed=-0.2, contrast=Contrast(arm="adam", against="sine"))
    assert there.unit == back.unit == UNITS.get(measure, "points")
    assert (there.measured is None) == (back.measured is None)
    if there.measured is None:
        return
    if there.unit == "share":
        assert (1 + back.measured) * (1 + there.measured) == pytest.approx(1, rel=1e-6)
    else:
        assert back.measured == pytest.approx(-there.measured, abs=1e-9)
        assert back.interval == pytest.approx((-there.interval.high, -there.interval.low), abs=1e-9)
        assert back.finding is there.finding


CELL = {"perturbation.n_qubits": 8, "perturbation.lambda_": 50.0, "learning_rate": 1e-3}


def test_cells_of_the_map_are_compared_with_the_baseline_s_and_with_each_other():
    tables = map_tables(planted)
    there = asked(tables, contrast=Contrast(arm="sine", at=CELL), claimed=-0.05)
    assert there.measured == pytest.approx(-0.05, abs=0.005)
    assert (there.finding, there.n_pairs, there.at) == (Finding.SUPPORTED, 8, CELL)
    elsewhere = CELL | {"perturbation.n_qubits": 2.0}  # 2.0 is the map's 2
    one = asked(tables, contrast=Contrast(arm="sine", at=elsewhere), claimed=-0.05)
    assert one.finding is Finding.CONTRADICTED
    both = asked(tables, contrast=Contrast(arm="sine", at=CELL, against_at=elsewhere), claimed=-0.05)
    assert both.finding is Finding.SUPPORTED
    counted = Expectation(lies="above", measure="lost_runs", words="{lost} of {arm} are lost")
    assert "0 of sine are lost" in in_words(tables, counted, contrast=Contrast(arm="sine", at=CELL)).why
    without = StudyTables(tables.study.model_copy(update={"map": None}), {}, tables.trials, tables.measurements)
    assert asked(without, contrast=Contrast(arm="sine", at=CELL), claimed=-0.05).why == "It needs a map of sine."


def test_along_an_axis_a_difference_is_its_slope():
    tables = map_tables(planted, axes={"perturbation.n_qubits": (2, 4, 8), "perturbation.lambda_": (50.0,)})
    claim = asked(tables, contrast=Contrast(arm="sine", along="perturbation.n_qubits"), claimed=-0.009)
    assert claim.measured == pytest.approx(-0.009, abs=0.002)  # 0, 0 and -5 points at 2, 4 and 8 qubits
    assert claim.finding is Finding.SUPPORTED
    rows = [
        row | {"mean_train_loss": 0.1 * json.loads(row["setting"]).get("perturbation.n_qubits", 0.0)}
        for row in tables.trials.to_pylist()
    ]
    tables = StudyTables(tables.study, {}, pa.Table.from_pylist(rows, schema=TRIALS), tables.measurements)
    rising = Contrast(arm="sine", along="perturbation.n_qubits")
    loss = asked(tables, measure="training_loss_difference", contrast=rising, claimed=0.1)
    assert (loss.measured, loss.finding) == (pytest.approx(0.1), Finding.SUPPORTED)
    seconds = asked(tables, measure="seconds_per_epoch_change", contrast=rising, claimed=0.5)
    assert (seconds.measured, seconds.finding) == (pytest.approx(0.0, abs=0.01), Finding.CONTRADICTED)


def test_a_loss_is_compared_in_its_unit():
    claim = asked(TWENTY, metric="loss", claimed=-0.02)
    assert (claim.unit, claim.finding) == ("nats", Finding.SUPPORTED)
    assert claim.measured == pytest.approx(-0.02, abs=0.003)
    assert asked(TWENTY, metric="loss", claimed=-0.02, unit="bits").unit == "bits"


def better(**fields) -> Expectation:
    return Expectation(**{"lies": "above", "words": "{arm} is {figure} points above {against}"} | fields)


def test_all_or_any_of_the_words_must_hold():
    tables = TWENTY
    shown, excluded = better(), better(lies="below", words="{arm} is not above")
    between = better(edge=0.5, excluded=-0.5, words="{low} to {high}")
    for rule, expects, finding in (
        ("all", (shown, shown), Finding.SUPPORTED),
        ("all", (shown, excluded), Finding.CONTRADICTED),
        ("all", (shown, between), Finding.INCONCLUSIVE),
        ("any", (excluded, shown), Finding.SUPPORTED),
        ("any", (excluded, between), Finding.INCONCLUSIVE),
        ("any", (excluded, excluded), Finding.CONTRADICTED),
    ):
        assert in_words(tables, *expects, rule=rule).finding is finding, (rule, expects)
    claim = in_words(tables, shown, between)
    low, high = claim.interval
    figures = f"{100 * low:+.2f} to {100 * high:+.2f}"
    assert claim.why == f"Sine is {100 * claim.measured:+.2f} ({figures}) points above adam and {figures}."


def test_what_the_study_lacks_leaves_a_claim_in_words_open():
    tables = TWENTY
    assert in_words(tables, better(), lacks="no arm of a small one").finding is Finding.INCONCLUSIVE
    assert in_words(tables, better(), lacks="no arm of a small one").why.endswith("; no arm of a small one.")
    assert in_words(tables, better(lies="below"), lacks="no arm").finding is Finding.CONTRADICTED
    assert asked(tables, claimed=0.02, unmeasured="It is another task's.").why == "It is another task's."


def test_the_margin_is_an_edge_of_the_metric_that_decides_alone():
    tables = two_arms(20, 0.005)
    assert tables.study.decision.margin == 0.01
    for edge, finding in ((0.0, Finding.SUPPORTED), ("margin", Finding.CONTRADICTED), ("-margin", Finding.SUPPORTED)):
        assert in_words(tables, better(edge=edge)).finding is finding
    worse = better(metric="loss", lies="below", words="{figure}")
    for edge in (0.0, "margin", "-margin"):
        assert in_words(tables, worse.model_copy(update={"edge": edge})).finding is Finding.SUPPORTED


def test_without_a_number_a_part_says_so():
    tables = two_arms(0)
    claim = asked(tables, parts=(ClaimPart(expects=(better(),), missing="no run of {arm} or {against} yet"),))
    assert (claim.finding, claim.why) == (Finding.INCONCLUSIVE, "No run of sine or adam yet.")
