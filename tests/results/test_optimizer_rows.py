"""Rows of arms with optimizers of their own: the class, its settings, and the way back from a row to its point."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.outcomes import OUTCOME
from support.small_study import a_study

from qsgd_ray.analysis.importance import importances
from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.analysis.trials import _searched_value
from qsgd_ray.config import Arm, Choice, Groups, LogUniform, Optimizer, Perturbation, Search, StudyError, Uniform
from qsgd_ray.config.trial import confirm_trials, search_trial
from qsgd_ray.reporting.page import render_page
from qsgd_ray.results import Results
from qsgd_ray.results._rows import trial_row
from qsgd_ray.search.observations import best_point

MUON = Groups(
    matrices=Optimizer("torch.optim.Muon", lr=LogUniform(low=1e-3, high=1.0), nesterov=Choice(options=(True, False))),
    rest=Optimizer("adamw", lr=1e-2, betas=(0.9, Uniform(low=0.9, high=0.999)), schedule="cosine"),
)
STUDY = a_study(
    arms=(
        Arm(name="adamw", learning_rate=LogUniform(low=1e-3, high=1e-2)),
        Arm(name="muon", optimizer=MUON, perturbation=Perturbation(source="sine", lambda_=0.5)),
    ),
    search=Search(trials_per_arm=40, epochs=2, grace_epochs=1),
)
POINTS = st.fixed_dictionaries(
    {
        "optimizer.matrices.lr": st.floats(1e-3, 1.0),
        "optimizer.matrices.nesterov": st.booleans(),
        "optimizer.rest.betas.1": st.floats(0.9, 0.999),
    }
)
POINT = {"optimizer.matrices.lr": 0.25, "optimizer.matrices.nesterov": False, "optimizer.rest.betas.1": 0.95}


@given(POINTS)
def test_a_row_tells_the_point_that_it_was_trained_at(point):
    row = trial_row(search_trial(STUDY, "muon", 0, point), OUTCOME)
    assert {path: _searched_value(row, path) for path in STUDY.arm("muon").spaces()} == point
    assert row["learning_rate"] == point["optimizer.matrices.lr"]
    assert row["weight_decay"] == 0.1  # Muon's own
    assert row["optimizer"] == "torch.optim.Muon + adamw"
    assert json.loads(row["optimizer_settings"])["rest"]["schedule"] == "cosine"


def test_rows_of_adamw_have_neither():
    row = trial_row(search_trial(STUDY, "adamw", 0, {"learning_rate": 2e-3}), OUTCOME)
    assert (row["optimizer"], row["optimizer_settings"], row["learning_rate"]) == (None, None, 2e-3)
    assert _searched_value(row, "learning_rate") == 2e-3
    assert _searched_value(row, "optimizer.lr") is None


@pytest.mark.parametrize("text", ["{", "[" * 5000, '{"rest": 1}'])
def test_settings_that_tell_nothing_are_missing(text):
    assert _searched_value({"optimizer_settings": text}, "optimizer.rest.lr") is None


@pytest.fixture
def results(tmp_path):
    """Forty search trials of the arm, the larger its rate the better, and its confirmation."""
    results = Results(tmp_path / "small")
    results.open(STUDY, {})
    for number in range(40):
        point = POINT | {"optimizer.matrices.lr": 0.01 * (number + 1), "optimizer.matrices.nesterov": number % 2 == 0}
        point["optimizer.rest.betas.1"] = 0.9 + 0.002 * (7 * number % 40)
        results.write(search_trial(STUDY, "muon", number, point), _outcome(0.5 + 0.01 * number))
    results.write(search_trial(STUDY, "adamw", 0, {"learning_rate": 2e-3}), _outcome(0.5))
    for arm, point in (("adamw", {"learning_rate": 2e-3}), ("muon", POINT)):
        for trial in confirm_trials(STUDY, arm, point):
            results.write(trial, OUTCOME, started_at=datetime.now(UTC))
    return results


def _outcome(accuracy):
    last = replace(OUTCOME.measurements[-1], validation_accuracy=accuracy)
    return replace(OUTCOME, measurements=(*OUTCOME.measurements[:-1], last), test_loss=None, test_accuracy=None)


def test_the_best_point_of_an_optimizer_is_found_again_and_kept(results):
    study, tables = STUDY, results.all_tables()
    best = best_point(study, study.arm("muon"), tables.trials.to_pylist())
    assert best["optimizer.matrices.lr"] == 0.01 * 40
    assert best["optimizer.matrices.nesterov"] is False
    assert not study.arm("muon").at(best).spaces()


def test_settings_of_optimizers_have_an_importance(results):
    of_muon = importances(results.all_tables())[1]
    assert of_muon.shares is not None, of_muon.why
    assert max(of_muon.shares, key=of_muon.shares.get) == "optimizer.matrices.lr"


def test_the_page_shows_what_arms_train_by(results):
    analysis = analyse(results.all_tables())
    (adamw, muon) = analysis.summaries
    assert (adamw.optimizer, adamw.optimizer_settings) == (None, None)
    assert ("matrices.lr", 0.25) in muon.optimizer_settings
    page = render_page(analysis)
    assert "torch.optim.Muon + adamw" in page
    assert "matrices.lr 0.25" in page
    assert "matrices.nesterov False" in page
    assert "rest.betas (0.9, 0.95)" in page


def test_settings_that_are_no_json_are_refused_in_one_line(results):
    path = sorted(results.storage.path.glob("trials/confirm-muon-*.parquet"))[0]
    rows = pq.read_table(path)
    index = rows.column_names.index("optimizer_settings")
    pq.write_table(rows.set_column(index, "optimizer_settings", pa.array(["{"], pa.string())), path)
    with pytest.raises(
        StudyError, match=r"whose optimizer_settings is no JSON .*; allowed: an optimizer's settings as JSON"
    ):
        results.all_tables()
