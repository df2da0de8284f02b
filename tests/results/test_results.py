"""Rows are typed, whole, never doubled, readable in one line by others; a row tells its trial."""

import json
import math
import pickle
from datetime import UTC, datetime, timedelta

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.outcomes import OUTCOME, TRIAL, measured
from support.small_study import a_study

from qsgd_ray.config import StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import Trial, confirm_trials, search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results, read
from qsgd_ray.results._rows import trial_row
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS


def test_a_trials_seconds_add_up_to_what_elapsed():
    last = measured(2, 0.95, circuit_wait_s=0.25, circuit_s=0.75, evaluation_s=0.125)
    outcome = Outcome(Ending.COMPLETED, (last,), test_s=0.5)
    began = datetime(2026, 1, 2, tzinfo=UTC)
    row = trial_row(TRIAL, outcome, started_at=began, ended_at=began + timedelta(seconds=4))
    parts = {name: row[name] for name in ("train_s", "circuit_wait_s", "evaluation_s", "idle_s")}
    assert parts == {"train_s": 0.75, "circuit_wait_s": 0.25, "evaluation_s": 0.625, "idle_s": 2.375}
    assert row["elapsed_s"] == sum(parts.values())
    assert row["wall_s"] == row["train_s"] + row["circuit_wait_s"]
    assert row["circuit_s"] == 0.75


@pytest.mark.parametrize("elapsed_s", [-3600.0, 0.0, 0.5])
def test_seconds_that_a_clock_which_was_set_back_tells_are_null_and_never_negative(elapsed_s):
    began = datetime(2026, 1, 2, tzinfo=UTC)
    last = measured(2, 0.95, circuit_wait_s=0.25, circuit_s=0.75, evaluation_s=2.0)
    ended = began + timedelta(seconds=elapsed_s)
    row = trial_row(TRIAL, Outcome(Ending.COMPLETED, (last,)), started_at=began, ended_at=ended)
    assert (row["elapsed_s"], row["idle_s"]) == (None, None)
    assert (row["wall_s"], row["evaluation_s"]) == (1.0, 2.0)
    lost = trial_row(TRIAL, Outcome(Ending.LOST), started_at=began, ended_at=ended)
    assert lost["elapsed_s"] == (None if elapsed_s < -1 else elapsed_s)
    close = trial_row(
        TRIAL, Outcome(Ending.COMPLETED, (last,)), started_at=began, ended_at=began + timedelta(seconds=2.5)
    )
    assert (close["elapsed_s"], close["idle_s"]) == (3.0, 0.0), "two clocks of a machine differ a little"


def test_seconds_that_nobody_measured_are_null():
    nothing = trial_row(TRIAL, Outcome(Ending.LOST))
    assert nothing["elapsed_s"] is None
    assert "wall_s" not in nothing
    assert trial_row(TRIAL, OUTCOME)["idle_s"] is None


@pytest.fixture
def results(tmp_path) -> Results:
    results = Results(tmp_path / "small")
    results.open(a_study(), {"commit": None})
    return results


def test_columns_that_were_added_since_are_null_in_earlier_rows(results):
    results.write(TRIAL, OUTCOME)
    (file,) = (results.path / "trials").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["answers", "answers_right"]), file)
    (row,) = read(results.path).trials.to_pylist()
    assert (row["answers"], row["answers_right"]) == (None, None)
    assert row["validation_accuracy"] == 0.95


def test_rows_come_back_as_they_went_in(results):
    results.write(TRIAL, OUTCOME, started_at=datetime(2026, 1, 2, tzinfo=UTC), host="here")
    tables = read(results.path)
    assert tables.study == a_study()
    assert tables.trials.schema.equals(TRIALS)
    assert tables.measurements.schema.equals(MEASUREMENTS)
    (row,) = tables.trials.to_pylist()
    assert (row["arm"], row["ending"], row["epochs_run"], row["steps"]) == ("sine", "completed", 2, 4)
    assert (row["lambda_"], row["n_qubits"], row["source"], row["formula"]) == (0.5, 2, "sine", "adamw")
    assert (row["epochs_to_target"], row["seconds_to_target"]) == (2, 1.0)
    assert row["test_accuracy"] is None
    assert [m["validation_accuracy"] for m in tables.measurements.to_pylist()] == [0.5, 0.95]


def test_trials_are_read_alone_without_a_look_at_the_measurements(results, monkeypatch):
    results.write(TRIAL, OUTCOME)
    whole, read_file = results.tables(), results.storage.read

    def trials_alone(name):
        assert not name.startswith("measurements")
        return read_file(name)

    monkeypatch.setattr(results.storage, "read", trials_alone)
    alone = results.tables(measurements=False)
    assert alone.trials.equals(whole.trials)
    assert alone.measurements.equals(MEASUREMENTS.empty_table())


def test_pandas_and_duckdb_read_the_rows_in_one_line(results):
    results.write(TRIAL, OUTCOME)
    assert pd.read_parquet(results.path / "trials")["arm"].tolist() == ["sine"]
    query = f"select arm, max(validation_accuracy) from '{results.path}/measurements/*.parquet' group by arm"
    assert duckdb.sql(query).fetchall() == [("sine", 0.95)]


def test_a_repeated_attempt_replaces_its_rows(results):
    results.write(TRIAL, Outcome(Ending.LOST, (measured(1, 0.1),)))
    assert not results.has(TRIAL.trial_id)
    results.write(TRIAL, OUTCOME)
    assert results.has(TRIAL.trial_id)
    assert read(results.path).measurements.num_rows == 2
    assert read(results.path).trials.num_rows == 1


def test_a_row_tells_its_whole_trial(results):
    results.write(TRIAL, OUTCOME)
    (row,) = read(results.path).trials.to_pylist()
    assert Trial.model_validate_json(row["trial"]) == TRIAL


def test_missing_is_null_and_never_zero(results):
    results.write(TRIAL, Outcome(Ending.FAILED, error="Traceback ..."))
    (row,) = read(results.path).trials.to_pylist()
    nulls = ("train_loss", "validation_accuracy", "steps", "epochs_to_target", "wall_s", "perturbation_norm")
    assert [row[name] for name in nulls] == [None] * len(nulls)
    assert row["error"] == "Traceback ..."


def test_a_miss_of_the_target_is_null(results):
    results.write(TRIAL, Outcome(Ending.COMPLETED, (measured(1, 0.5),)))
    assert read(results.path).trials["epochs_to_target"].to_pylist() == [None]


def test_norms_are_averaged_over_the_epochs_that_have_them(results):
    measurements = (measured(1, 0.5), measured(2, 0.6, perturbation_norm=2.0), measured(3, 0.6, perturbation_norm=4.0))
    results.write(TRIAL, Outcome(Ending.COMPLETED, measurements))
    assert read(results.path).trials["perturbation_norm"].to_pylist() == [3.0]


def test_a_kill_between_the_two_tables_leaves_no_half_trial(results):
    results.write(TRIAL, OUTCOME)
    (results.path / "trials" / f"{TRIAL.trial_id}.parquet").unlink()
    assert not results.has(TRIAL.trial_id)
    assert read(results.path).measurements.num_rows == 0


def test_a_kill_in_the_middle_of_a_write_leaves_nothing_that_is_read(results):
    (results.path / "trials" / f".{TRIAL.trial_id}.parquet.0123").write_bytes(b"PAR1 half a fi")
    assert read(results.path).trials.num_rows == 0


@pytest.mark.parametrize("inside", ["file/below", "file"])
def test_a_storage_that_cannot_be_written_is_one_line(tmp_path, inside):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match=r"--storage: got .*; allowed: a folder that can be written \(") as error:
        Results(tmp_path / inside).open(a_study(), {})
    assert "\n" not in str(error.value)


def test_a_folder_without_a_study_is_one_line(tmp_path):
    with pytest.raises(StudyError, match="allowed: a folder that a study was run into"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["study.json", "provenance.json"])
def test_a_broken_file_is_one_line_that_names_it(results, name):
    (results.path / name).write_text("{")
    for use in (results.all_tables, lambda: results.open(a_study(), {})):
        with pytest.raises(StudyError, match=f"whose {name} is broken"):
            use()


def test_a_broken_row_is_one_line_that_names_it(results):
    results.write(TRIAL, OUTCOME)
    (results.path / "trials" / f"{TRIAL.trial_id}.parquet").write_bytes(b"PAR1")
    with pytest.raises(StudyError, match=f"{TRIAL.trial_id}.parquet, which cannot be read"):
        results.all_tables()


def test_a_resumed_study_keeps_what_it_was_begun_with(results):
    results.open(a_study(), {"commit": "second"})
    results.open(a_study(), {"commit": "third"})
    found = read(results.path).provenance
    version = found.pop("study_version")
    runs = [{"commit": commit, "study_version": version} for commit in ("second", "third")]
    assert found == {"commit": None, "resumed": runs}


def test_a_planted_pickle_is_not_opened(results, monkeypatch):
    """Nothing read back is unpickled: a hostile file among the results is an error at most, never code."""

    def refuse(*_: object) -> None:
        raise AssertionError("unpickled")

    results.write(TRIAL, OUTCOME)
    (results.path / "trials" / "planted.pkl").write_bytes(pickle.dumps({"a": 1}))
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    assert read(results.path).trials.num_rows == 1
    assert results.trajectory(TRIAL.trial_id)[1]["epoch"] == 2


def test_a_trial_is_named_by_its_content():
    again = search_trial(a_study(), "sine", 0, {"learning_rate": 1e-3})
    assert again.trial_id == TRIAL.trial_id
    others = [
        search_trial(a_study(), "sine", 1, {"learning_rate": 1e-3}),
        search_trial(a_study(), "sine", 0, {"learning_rate": math.nextafter(1e-3, 1)}),
        search_trial(with_overrides(a_study(), ["workload.difficulty=0.3"]), "sine", 0, {"learning_rate": 1e-3}),
        *confirm_trials(a_study(), "sine", {"learning_rate": 1e-3}),
    ]
    assert len({TRIAL.trial_id, *(other.trial_id for other in others)}) == 1 + len(others)


def test_changing_the_margin_of_the_verdict_renames_no_trial():
    other = with_overrides(a_study(), ["decision.margin=0.2"])
    assert search_trial(other, "sine", 0, {"learning_rate": 1e-3}).trial_id == TRIAL.trial_id


def test_confirmation_is_paired_on_disjoint_seeds_and_alone_reads_test_data():
    study = a_study()
    trials = {arm.name: confirm_trials(study, arm.name, {"learning_rate": 1e-3}) for arm in study.arms}
    assert [t.seed for t in trials["adamw"]] == [t.seed for t in trials["sine"]] == [11, 12]
    assert all(t.reads_test for t in trials["sine"])
    assert not TRIAL.reads_test
    assert TRIAL.seed not in study.confirm.seeds


def test_the_stored_study_is_plain_json(results):
    assert json.loads((results.path / "study.json").read_text())["name"] == "small"
