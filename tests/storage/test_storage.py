"""Storage in a folder and in an object store: whole files only, one line for bad input, answers in bounded time."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import fs
from ray.train import TrainingFailedError
from support.command_line import STUDY, command, command_output, said_by
from support.outcomes import OUTCOME, TRIAL, measured
from support.places import TESTS
from support.processes import STARTS_RAY_S
from support.small_study import a_study
from support.stores import BUCKET, client, closed_endpoint, credentials, refusing_server, s3_server, silent_server

from qsgd_ray import storage
from qsgd_ray.config import StudyError
from qsgd_ray.config.loading import with_overrides
from qsgd_ray.config.trial import confirm_trials, search_trial
from qsgd_ray.execution.train_group import _ended_by
from qsgd_ray.outcome import Ending, Outcome
from qsgd_ray.reporting.page import write_report
from qsgd_ray.results import Results, read
from qsgd_ray.storage import Folder, ObjectStore, StorageError, storage_at
from qsgd_ray.study.run import chosen_points, unfinished


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(server, monkeypatch):
    """The server's own client, with the environment set for ours."""
    for name, value in credentials(server).items():
        monkeypatch.setenv(name, value)
    return client(server)


@pytest.fixture
def uri(s3, request) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/{abs(hash(request.node.name))}"


@pytest.fixture
def results(uri) -> Results:
    results = Results(uri)
    results.open(a_study(), {"commit": None})
    return results


def keys(s3, uri: str) -> list[str]:
    prefix = f"{uri.removeprefix(f's3://{BUCKET}/')}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])]


# --- which storage a word names ---


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("results", Path("results")),
        ("/a/b c", Path("/a/b c")),
        ("C:/results", Path("C:/results")),
        ("file:///a/b%20c", Path("/a/b c")),
        (Path("s3:/no/uri"), Path("s3:/no/uri")),
    ],
)
def test_a_folder_is_a_folder(word, place):
    found = storage_at(word)
    assert isinstance(found, Folder)
    assert found.place() == place
    assert (found / "below").place("file") == place / "below" / "file"


def test_a_uri_keeps_its_question_behind_the_names_that_are_put_below():
    place = storage_at("s3://bucket/some%20prefix/?region=eu-west-1") / "my study"
    assert str(place) == "s3://bucket/some%20prefix/my%20study?region=eu-west-1"
    assert place.place("report.html") == "s3://bucket/some%20prefix/my%20study/report.html?region=eu-west-1"
    assert storage_at(place) is place
    assert str(storage_at("gs://bucket") / "small") == "gs://bucket/small"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("ftp://host/x", "got ftp://host/x; allowed: a folder, or a URI that begins with one of file://, s3://, gs://"),
        ("s3:///x", "got s3:///x; allowed: s3://BUCKET/PREFIX"),
        ("gs:/bucket/x", "got gs:/bucket/x; allowed: gs://BUCKET/PREFIX"),
        ("s3://[bucket/x", "got s3://[bucket/x; allowed: a folder or a URI (Invalid IPv6 URL)"),
        ("s3://key:secret@bucket/x", "got s3://... with a secret in it; allowed: a URI without"),
    ],
)
def test_a_word_that_names_no_storage_is_one_line_and_no_secret_is_repeated(word, said):
    with pytest.raises(StudyError) as error:
        storage_at(word, "DIR")
    assert str(error.value).startswith(f"DIR: {said}")
    assert "\n" not in str(error.value)
    assert "key:secret" not in str(error.value)


# --- rows in an object store ---


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
from qsgd_ray.storage import ObjectStore

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
    assert unfinished(results.tables(a_study())) == {"adamw": 2, "sine": 1}
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
    assert write_report(results.path) == f"{results.path}/report.html"
    told = command_output(monkeypatch, capsys, "report", results.path)
    assert f"Report: {results.path}/report.html" in told.splitlines()
    page = s3.get_object(Bucket=BUCKET, Key=f"{results.path.removeprefix(f's3://{BUCKET}/')}/report.html")
    assert b"Is it a study?" in page["Body"].read()


def test_a_broken_row_in_a_bucket_is_one_line_that_names_it(results):
    results.storage.put("trials/bad.parquet", b"PAR1")
    with pytest.raises(StudyError, match=rf"DIR: got {results.path}/trials/bad.parquet, which cannot be read \("):
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
    results.storage.require()


# --- one line, in bounded time ---


def refused_by(monkeypatch, endpoint: str, where: str = "s3://studies/x") -> tuple[str, str, float]:
    """What is said to one who wants to write and to one who wants to read, and how long both took."""
    for name, value in credentials(endpoint).items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(StudyError) as writing:
        Results(where).open(a_study(), {})
    with pytest.raises((StudyError, StorageError)) as reading:
        read(where)
    for error in (writing, reading):
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
    return str(writing.value), str(reading.value), time.monotonic() - began


def test_a_bucket_that_is_not_there_is_one_line(server, monkeypatch):
    writing, reading, _ = refused_by(monkeypatch, server, "s3://none/x")
    assert writing == "--storage: got s3://none/x; allowed: a URI that can be written (there is no bucket none)"
    assert reading == "there is no bucket none"


def test_a_prefix_without_a_study_is_one_line(uri):
    with pytest.raises(StudyError, match=f"DIR: got {uri}; allowed: a URI that a study was run into"):
        read(uri)


def test_a_store_without_permission_is_one_line(monkeypatch):
    with refusing_server() as endpoint:
        writing, reading, took_s = refused_by(monkeypatch, endpoint)
    assert "ACCESS_DENIED" in writing
    assert "ACCESS_DENIED" in reading
    assert took_s < 30


def test_a_store_where_nobody_listens_is_one_line_in_bounded_time(monkeypatch):
    writing, _, took_s = refused_by(monkeypatch, closed_endpoint())
    assert writing.startswith("--storage: got s3://studies/x; allowed: a URI that can be written (")
    assert "Could not connect to server" in writing
    assert took_s < 2 * storage.FIRST_ANSWER_TIMEOUT_S + 10


def test_google_where_nobody_listens_is_one_line_in_bounded_time(monkeypatch):
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", closed_endpoint())
    where = "gs://anonymous@studies/x?retry_limit_seconds=1"
    with pytest.raises(StudyError, match=r"--storage: got gs://anonymous@studies/x.*\(.*Could not connect to server"):
        Results(where).open(a_study(), {})


def test_a_trial_whose_row_could_not_be_stored_is_lost_and_not_to_blame():
    error = TrainingFailedError()
    error.worker_failures = {0: StorageError("no answer"), 1: RuntimeError("the other replica is gone")}
    outcome, _ = _ended_by(error)
    assert outcome.ending is Ending.LOST
    assert "no answer" in outcome.error


def test_a_word_that_pyarrow_takes_for_no_uri_is_one_line(s3):
    with pytest.raises(StudyError, match=r"--storage: got s3://studies/x\?frob=1; .*\(Unexpected query parameter"):
        Results("s3://studies/x?frob=1").open(a_study(), {})


SILENT = """
import sys
from qsgd_ray import cli, storage
storage.FIRST_ANSWER_TIMEOUT_S = 1
sys.argv = ["qsgd-ray", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize("command_words", [["run", "STUDY", "--storage"], ["report"]], ids=["run", "report"])
def test_a_silent_store_holds_up_neither_the_command_nor_its_end(tmp_path, command_words):
    study = tmp_path / "small.py"
    study.write_text(STUDY)
    words = [str(study) if word == "STUDY" else word for word in command_words]
    with silent_server() as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", SILENT, *words, f"s3://{BUCKET}/x"],
            env=os.environ | credentials(endpoint) | {"PYTHONPATH": str(TESTS)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert "no answer within 1 s" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_command_says_in_one_line_what_storage_it_does_not_take(monkeypatch, capsys, tmp_path, s3):
    study = tmp_path / "small.py"
    study.write_text(STUDY)
    monkeypatch.syspath_prepend(str(TESTS))
    for words, said in (
        (("run", study, "--storage", "ftp://host/x"), "qsgd-ray: --storage: got ftp://host/x; allowed: a folder, or a"),
        (("report", "ftp://host/x"), "qsgd-ray: DIR: got ftp://host/x; allowed: a folder, or a URI that begins with"),
        (("run", study, "--storage", "s3://none/x"), "qsgd-ray: --storage: got s3://none/x/small; allowed: a URI that"),
        (("report", "s3://none/x"), "qsgd-ray: DIR: got s3://none/x; allowed: a study's results that can be read and"),
    ):
        code, told = said_by(monkeypatch, capsys, *words)
        assert code == 2
        assert told.startswith(said)
        assert told.count("\n") == 1


# --- a whole study ---


@pytest.mark.xdist_group("cli")
@pytest.mark.timeout(STARTS_RAY_S)
def test_a_study_runs_into_a_bucket_and_the_same_command_does_nothing_anew(s3, server, uri, tmp_path):
    study = tmp_path / "small.py"
    study.write_text(STUDY.replace('Perturbation(source="circuit", n_qubits=2)', 'Perturbation(source="sine")'))
    words = command("run", study, "--storage", uri, "--set", "search.trials_per_arm=1")
    words["env"] |= credentials(server)
    done = subprocess.run(**words, timeout=400, check=False)
    assert done.returncode == 0, done.stdout
    place = f"{uri}/small"
    assert f"Report: {place}/report.html" in done.stdout
    assert "Traceback" not in done.stdout
    tables = read(place)
    assert [row["ending"] for row in tables.trials.to_pylist()] == ["completed"] * 6
    assert json.loads(storage_at(place).read("chosen.json")).keys() == {"adamw", "circuit"}
    assert storage_at(place).read("study.py") == study.read_bytes()
    prefix = place.removeprefix(f"s3://{BUCKET}/")

    def put_at():
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
        return {item["Key"]: item["LastModified"] for item in listed if item["Key"].endswith((".parquet", "sen.json"))}

    before = put_at()
    assert len(before) == 13
    again = subprocess.run(**words, timeout=400, check=False)
    assert again.returncode == 0, again.stdout
    assert put_at() == before
    assert len(read(place).provenance["resumed"]) == 1
