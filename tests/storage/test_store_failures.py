"""A store that fails is one line, in bounded time."""

import os
import subprocess
import sys
import time

import pytest
from ray.train import TrainingFailedError
from support.command_line import STUDY, said_by
from support.places import TESTS
from support.small_study import a_study
from support.stores import BUCKET, closed_endpoint, credentials, refusing_server, silent_server

from qsgd_ray.config import StudyError
from qsgd_ray.execution.train_group import _ended_by
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results, read
from qsgd_ray.storage import ObjectStore, StorageError


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
    assert took_s < 2 * ObjectStore.first_answer_timeout_s + 10


def test_google_where_nobody_listens_is_one_line_in_bounded_time(monkeypatch):
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", closed_endpoint())
    where = "gs://anonymous@studies/x?retry_limit_seconds=1"
    with pytest.raises(
        StudyError, match=r"--storage: got gs://anonymous@studies/x.*\(.*Could not connect to server\)$"
    ):
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
from qsgd_ray import cli
from qsgd_ray.storage import ObjectStore
ObjectStore.first_answer_timeout_s = 1
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
