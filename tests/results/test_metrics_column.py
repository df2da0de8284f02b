"""Further metrics of a task of one's own go into one column, come back, and are checked when they are read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.own_tasks import Line
from support.small_study import a_study
from support.trainings import small_trial

from qsgd_ray.config import Arm, Study, StudyError
from qsgd_ray.config.trial import confirm_trials
from qsgd_ray.outcome import Ending, Measurement, Outcome
from qsgd_ray.results import Results
from qsgd_ray.results._rows import measurement_rows, trial_row
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS

STUDY = Study(
    **{name: getattr(a_study(), name) for name in Study.model_fields}
    | {"workload": Line(), "arms": (Arm(name="a"), Arm(name="b")), "baseline": "a", "claims": {}, "map": None}
)


def outcome(validation, test=None):
    measured = Measurement(1, 3, 0.5, 0.0, 0, 1.0, 2.0, None, metrics=validation)
    return Outcome(Ending.COMPLETED, (measured,), test_loss=1.0, test_metrics=test, workers=1)


VALUES = st.none() | st.dictionaries(st.sampled_from(["mse", "near"]), st.none() | st.floats(-1e9, 1e9), min_size=1)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(validation=VALUES, test=VALUES)
def test_metrics_come_back_from_the_rows(tmp_path, validation, test):
    trial = confirm_trials(STUDY, "a", {})[0]
    results = Results(tmp_path / "study")
    if results.read_json("study.json") is None:
        results.open(STUDY, {})
    results.write(trial, outcome(validation, test))
    row = results.row(trial.trial_id)
    found = json.loads(row["metrics"]) if row["metrics"] else {}
    assert (found.get("validation"), found.get("test")) == (validation, test)
    assert Measurement.from_row(results.trajectory(trial.trial_id)[0]).metrics == validation
    tables = results.tables()
    assert tables.trials["validation_accuracy"].null_count == tables.trials.num_rows == 1


def test_a_shipped_task_has_none():
    row = trial_row(small_trial(), outcome(None))
    assert row["metrics"] is None
    assert measurement_rows(small_trial(), outcome(None))[0]["metrics"] is None


WRONG = [
    ("no json", "whose metrics is no JSON that can be read"),
    ("[1]", "whose metrics is JSON of something else"),
    ('{"train": {}}', "whose metrics is JSON of something else"),
    ('{"test": 3}', "whose metrics is JSON of something else"),
    ('{"test": {"mse": "1"}}', "whose metrics is JSON of something else"),
    ('{"test": {"mse": true}}', "whose metrics is JSON of something else"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[text for text, _ in WRONG])
@pytest.mark.parametrize("table", ["trials", "measurements"])
def test_a_column_that_holds_anything_else_is_refused_in_one_line(tmp_path, table, text, line):
    trial = confirm_trials(STUDY, "a", {})[0]
    results = Results(tmp_path)
    results.open(STUDY, {})
    results.write(trial, outcome({"mse": 1.0}))
    file = tmp_path / table / f"{trial.trial_id}.parquet"
    rows = [row | {"metrics": text} for row in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema={"trials": TRIALS, "measurements": MEASUREMENTS}[table]), file)
    with pytest.raises(StudyError, match=line):
        Results(tmp_path).tables()


def test_a_shipped_task_s_accuracy_is_never_null(tmp_path):
    results = Results(tmp_path)
    results.open(a_study(), {})
    trial = confirm_trials(a_study(), a_study().baseline, {"learning_rate": 5e-3})[0]
    results.write(trial, outcome(None))
    with pytest.raises(StudyError, match="whose validation_accuracy is null after an epoch"):
        Results(tmp_path).tables()
