"""Rows in an object store are those of a folder: whole files only, whoever is killed in between."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import fs
from support.command_line import STUDY, command_output
from support.outcomes import OUTCOME, TRIAL, measured
from support.places import TESTS
from support.small_study import a_study
from support.stores import BUCKET, keys

from qsgd_ray.config import StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import confirm_trials, search_trial
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.results import Results
from qsgd_ray.search.observations import unfinished_points
from qsgd_ray.storage import ObjectStore, storage_at
from qsgd_ray.study._stages import chosen_points
from qsgd_ray.study.reading import read_results


def test_a_study_in_a_bucket_comes_back_as_from_a_folder(results, tmp_path):
    local = Results(tmp_path)
    local.open(a_study(), {"commit": None})
    for place in (results, local):
        place.write(TRIAL, OUTCOME)
        assert place.has(TRIAL.trial_id)
        assert place.ending(TRIAL.trial_id) is Ending.COMPLETED
        assert place.count() == 1
    there, here = results.all_tables(), local.all_tables()
    assert there.study == here.study
    assert there.provenance == here.provenance
    assert there.trials.equals(here.trials)
    assert there.measurements.equals(here.measurements)
    assert results.trajectory(TRIAL.trial_id) == local.trajectory(TRIAL.trial_id)


def test_a_bucket_holds_the_files_of_a_folder_and_nothing_else(results, s3, tmp_path):
    local = Results(tmp_path)
    local.open(a_study(), {"commit": None})
    for place in (results, local):
        place.write(TRIAL, OUTCOME)
        place.write_text("study.py", STUDY)
    here = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert set(keys(s3, results.path)) == here


def test_a_file_is_put_in_one_request_however_large_a_report(results, s3):
    place = results.write_text("report.html", "x" * 6_000_000)
    key = place.removeprefix(f"s3://{BUCKET}/")
    assert "-" not in s3.head_object(Bucket=BUCKET, Key=key)["ETag"], "an upload in parts can be left half done"
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


def test_a_repeated_attempt_in_a_bucket_replaces_its_rows(results):
    results.write(TRIAL, Outcome(Ending.LOST, (measured(1, 0.1),)))
    assert not results.has(TRIAL.trial_id)
    results.write(TRIAL, OUTCOME)
    assert results.has(TRIAL.trial_id)
    assert (results.all_tables().trials.num_rows, results.all_tables().measurements.num_rows) == (1, 2)


KILLED = """
import os, signal, sys
from support.small_study import a_study
from support.outcomes import OUTCOME, TRIAL
from qsgd_ray.results import Results
from qsgd_ray.storage import ObjectStore, storage_at

put, left = ObjectStore.put, [int(sys.argv[2])]

def put_so_many(store, name, content):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    put(store, name, content)

ObjectStore.put = put_so_many
Results(sys.argv[1]).write(TRIAL, OUTCOME)
"""


@pytest.mark.parametrize("puts", [0, 1])
def test_a_kill_between_two_writes_leaves_no_half_trial_and_the_next_attempt_no_double(results, puts, s3):
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    killed = subprocess.run([sys.executable, "-c", KILLED, results.path, str(puts)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len([key for key in keys(s3, results.path) if key.endswith(".parquet")]) == puts
    assert not results.has(TRIAL.trial_id)
    assert (results.all_tables().trials.num_rows, results.all_tables().measurements.num_rows) == (0, 0)
    results.write(TRIAL, OUTCOME)
    assert (results.all_tables().trials.num_rows, results.all_tables().measurements.num_rows) == (1, 2)


def test_a_study_in_a_bucket_is_gone_on_with_and_may_change(results):
    results.write(TRIAL, OUTCOME)
    again = Results(results.path)
    again.open(a_study(), {"commit": "second"})
    assert again.has(TRIAL.trial_id)
    assert [run["commit"] for run in again.all_tables().provenance["resumed"]] == ["second"]
    again.open(with_overrides(a_study(), ["arms.sine.learning_rate=0.5"]), {})
    tables = again.tables()
    assert (tables.trials.num_rows, tables.n_others, len(tables.changes)) == (0, 1, 1)


def test_what_a_study_asks_of_its_results_it_may_ask_of_a_bucket(results):
    write = [search_trial(a_study(), "sine", number, {"learning_rate": 0.001}) for number in range(2)]
    results.write(write[0], OUTCOME)
    results.write(write[1], Outcome(Ending.LOST))
    assert unfinished_points(results.tables(a_study())) == {"adamw": 2, "sine": 1}
    assert chosen_points(results.tables(a_study()), results) == {"sine": {"learning_rate": 0.001}}
    assert results.read_json("chosen.json")["sine"]["point"] == {"learning_rate": 0.001}


def test_results_travel_to_other_processes_without_a_connection_or_a_secret(results):
    results.write(TRIAL, OUTCOME)
    packed = pickle.dumps(results)
    assert b"nothing" not in packed
    assert pickle.loads(packed).has(TRIAL.trial_id)


def test_more_files_than_one_page_of_a_listing_are_all_seen(results):
    names = [f"trials/search-{number:04}.parquet" for number in range(1_050)]
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(lambda name: results.storage.put(name, b"x"), names))
    results.storage.put("trials/.hidden.parquet", b"x")
    results.storage.put("trials/notes.txt", b"x")
    results.storage.put("trials/below/other.parquet", b"x")
    assert [f"trials/{name}" for name in results.storage.names("trials", ".parquet")] == names
    assert results.count() == 1_050


def test_many_trials_are_read_in_their_order(results):
    study = with_overrides(a_study(), [f"confirm.seeds={list(range(11, 51))}"])
    trials = confirm_trials(study, "sine", {"learning_rate": 1e-3})
    for trial in reversed(trials):
        results.write(trial, OUTCOME)
    tables = results.all_tables()
    assert tables.trials["trial_id"].to_pylist() == sorted(trial.trial_id for trial in trials)
    assert tables.measurements.num_rows == 80


def test_the_report_is_written_where_the_rows_are(results, s3, monkeypatch, capsys):
    results.write(TRIAL, OUTCOME)
    assert read_results(results.path).report() == f"{results.path}/report.html"
    told = command_output(monkeypatch, capsys, "report", results.path)
    assert f"Report: {results.path}/report.html" in told.splitlines()
    page = s3.get_object(Bucket=BUCKET, Key=f"{results.path.removeprefix(f's3://{BUCKET}/')}/report.html")
    assert b"Is it a study?" in page["Body"].read()


def test_a_broken_row_in_a_bucket_is_one_line_that_names_it(results):
    results.storage.put("trials/search-bad.parquet", b"PAR1")
    with pytest.raises(
        StudyError, match=rf"DIR: got {results.path}/trials/search-bad.parquet, which cannot be read \("
    ):
        results.all_tables()


def test_a_broken_note_in_a_bucket_is_one_line_that_names_it(results):
    results.storage.put("study.json", b"{")
    with pytest.raises(StudyError, match=rf"DIR: got {results.path}, whose study.json is broken \(") as error:
        results.all_tables()
    assert str(error.value).endswith("; allowed: a study's URI")
    assert "\n" not in str(error.value)


def test_a_store_that_is_no_bucket_has_its_files_moved_into_place(tmp_path, monkeypatch):
    """The way of hdfs:// and abfss://, whose clients write in place; a folder stands in for them."""
    moved = []

    class Watched(fs.LocalFileSystem):
        def move(self, source, target):
            moved.append(Path(target).name)
            super().move(source, target)

    monkeypatch.setattr(ObjectStore, "_connect", lambda _: (Watched(), str(tmp_path)))
    results = Results("hdfs://host/x")
    results.open(a_study(), {})
    results.write(TRIAL, OUTCOME)
    assert re.fullmatch(r"001-\w{10}\.json", moved.pop(0))
    assert moved == ["study.json", "provenance.json", *[f"{TRIAL.trial_id}.parquet"] * 2]
    assert results.all_tables().trials.num_rows == 1
    assert not list(tmp_path.rglob(".*"))
    results.storage.check_exists()


def test_studies_below_a_prefix_are_listed(results, monkeypatch, capsys):
    results.storage.put("provenance.json", b"{}")
    above = storage_at(results.path.rpartition("/")[0])
    name = results.path.rpartition("/")[2]
    assert name in above.folders()
    assert (above / name).folders() == ["studies"]
    told = command_output(monkeypatch, capsys, "list", results.path, "--format", "json")
    (entry,) = json.loads(told)["studies"]
    assert (entry["place"], entry["state"], entry["ended"]) == (results.path, "stopped", 0)
    told = command_output(monkeypatch, capsys, "status", results.path, "--format", "json")
    assert json.loads(told)["stage"] == "search"
