"""A setting that decides has a larger share than one that does not; without enough trials there are no shares."""

import numpy as np
import pyarrow as pa
import pytest
from support.synthetic_results import RATE, a_study

from qsgd_ray.analysis.importance import importances
from qsgd_ray.config import Arm, Choice, LogUniform, Perturbation, Study
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS

ARMS = (
    Arm(name="adamw", learning_rate=RATE),
    Arm(
        name="sine",
        learning_rate=RATE,
        perturbation=Perturbation(
            source="sine", lambda_=LogUniform(low=0.1, high=10), n_qubits=Choice(options=(2, 4, 8))
        ),
    ),
    Arm(name="fixed", learning_rate=1e-3),
)


def searched(n, accuracy, **fields):
    """`n` trials of the arm `sine`, drawn from its space."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(n):
        row = {
            "stage": "search",
            "arm": "sine",
            "number": number,
            "ending": str(Ending.COMPLETED),
            "learning_rate": float(10 ** rng.uniform(-4, -1)),
            "lambda_": float(10 ** rng.uniform(-1, 1)),
            "n_qubits": int(rng.choice([2, 4, 8])),
        }
        rows.append(row | {"validation_accuracy": accuracy(row)} | fields)
    return rows


def importance_by_arm(rows):
    study = Study.model_validate(a_study(["adamw"], 5).model_dump() | {"arms": ARMS})
    tables = StudyTables(study, {}, pa.Table.from_pylist(rows, schema=TRIALS), MEASUREMENTS.empty_table())
    return {importance.arm: importance for importance in importances(tables)}


@pytest.mark.parametrize(
    ("path", "accuracy"),
    [
        ("learning_rate", lambda row: 0.9 - 0.1 * abs(np.log10(row["learning_rate"]) + 2)),
        ("perturbation.lambda_", lambda row: 0.9 - 0.1 * np.log10(row["lambda_"]) ** 2),
    ],
)
def test_the_setting_that_decides_has_the_largest_share(path, accuracy):
    importance = importance_by_arm(searched(120, accuracy))["sine"]
    assert sum(importance.shares.values()) == pytest.approx(1)
    assert max(importance.shares, key=importance.shares.get) == path
    assert importance.shares[path] > 0.6
    assert (importance.n_trials, importance.n_null, importance.why) == (120, 0, None)


def test_the_same_rows_have_the_same_shares():
    rows = searched(40, lambda row: row["learning_rate"])
    assert importance_by_arm(rows) == importance_by_arm(rows)


def test_nothing_is_said_where_too_few_trials_have_an_accuracy():
    rows = searched(10, lambda row: row["learning_rate"])
    assert importance_by_arm(rows)["sine"].shares is not None
    rows[0]["validation_accuracy"] = None
    rows[1]["ending"] = str(Ending.DIVERGED)
    importance = importance_by_arm(rows)["sine"]
    assert (importance.shares, importance.n_trials, importance.n_null) == (None, 10 - 2, 2)
    assert importance.why == "8 of the 10 trials that it takes"


def test_nothing_is_said_where_there_is_nothing_to_tell_apart():
    by_arm = importance_by_arm([])
    assert by_arm["adamw"].why == "learning_rate alone is searched"
    assert by_arm["fixed"].why == "nothing is searched"
    assert importance_by_arm(searched(20, lambda row: 0.5))["sine"].why == "all trials are alike"
    point = {"learning_rate": 1e-3, "lambda_": 1.0, "n_qubits": 4}
    assert (
        importance_by_arm(searched(20, lambda row: row["number"] / 20, **point))["sine"].why == "all trials are alike"
    )


def test_trials_outside_of_the_spaces_of_today_do_not_count():
    rows = searched(20, lambda row: row["learning_rate"])
    rows[0]["lambda_"], rows[1]["n_qubits"], rows[2]["learning_rate"] = 100.0, 5, None
    assert importance_by_arm(rows)["sine"].n_trials == 17
