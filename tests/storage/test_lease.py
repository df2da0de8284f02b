"""One process at a time runs a study into a storage; a dead one's lease is free at once, a silent one's soon."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from support.command_line import STUDY, said_by
from support.places import TESTS
from support.small_study import a_study
from support.synthetic_results import made, runs

from qsgd_ray.config import StudyError
from qsgd_ray.results import Results
from qsgd_ray.storage import Folder, Lease, StorageError, held, storage_at
from qsgd_ray.storage import holder as present_holder
from qsgd_ray.storage.lease import _FILE

HOLDER = """
import sys, time
from pathlib import Path
from qsgd_ray.results import Results
with Results(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(120)
"""


class Unlocked(Folder):
    """A folder on a file system without locks; names in it are seen as those of an object store are."""

    kind = "URI"


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lease of `tmp_path / "small"`."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "small")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def quick(monkeypatch):
    """Renewals that take no time."""
    monkeypatch.setattr(Lease, "beat_s", 0.05)
    monkeypatch.setattr(Lease, "silent_s", 0.5)
    monkeypatch.setattr(Lease, "settle_s", 0.1)


def lease_of_another(folder: Folder, **fields) -> dict:
    """Write the lease of a process of another machine, and return it."""
    tree = {
        "token": "other",
        "host": "elsewhere",
        "machine": "0" * 8,
        "pid": 1,
        "started": 1,
        "since": "then",
        "beat": 1,
    }
    folder.put(_FILE, json.dumps(tree | fields).encode())
    return tree | fields


def test_a_second_driver_is_refused_in_one_line_with_host_process_and_time(tmp_path, holder, monkeypatch, capsys):
    (tmp_path / "small.py").write_text(STUDY)
    monkeypatch.syspath_prepend(str(TESTS))
    before = sorted(tmp_path.rglob("*"))
    words = ("run", tmp_path / "small.py", "--storage", tmp_path, "--set", "confirm.seeds=[5]")
    code, told = said_by(monkeypatch, capsys, *words)
    assert code == 2
    assert f"in use by process {holder.pid} on {socket.gethostname()[:12]}" in told
    assert " since 20" in told
    assert told.startswith(f"qsgd-ray: --storage: got {tmp_path}/small, in use")
    assert told.count("\n") == 1
    assert len(told) <= 301
    assert sorted(tmp_path.rglob("*")) == before


def test_a_killed_drivers_lease_is_free_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "small" / _FILE).exists()
    began = time.monotonic()
    with Results(tmp_path / "small").held():
        assert time.monotonic() - began < 2
    assert not (tmp_path / "small" / _FILE).exists()


def test_a_stopped_driver_lives(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(StudyError, match="in use by process"), Results(tmp_path / "small").held():
        pass


def test_reading_needs_no_lease_and_packing_beside_a_driver_is_safe(tmp_path, holder):
    study = made({"adamw": runs([0.9, 0.91])})
    results = Results(tmp_path / "small")
    for trial, outcome in study.trials:
        results.open(study.study, {})
        results.write(trial, outcome)
    results.pack()
    assert results.tables().trials.num_rows == 2
    assert holder.poll() is None


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_the_lease_ends_with_its_block_however_it_ends(tmp_path, error):
    try:
        with Results(tmp_path).held():
            if error:
                raise error
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert not list(tmp_path.iterdir())
    with Results(tmp_path).held():
        pass


def test_released_before_its_end_it_is_free_and_the_end_takes_no_other_ones(tmp_path):
    results, other = Results(tmp_path), Results(tmp_path)
    with results.held():
        results.release()
        results.release()
        with other.held():
            pass
        lease_of_another(Folder(tmp_path))
    assert (tmp_path / _FILE).exists()


@pytest.mark.parametrize("kind", [Folder, Unlocked])
def test_of_many_that_start_together_one_goes_on(tmp_path, monkeypatch, quick, kind):
    if kind is Unlocked:
        monkeypatch.setattr("qsgd_ray.storage.lease.Folder", type(None))
    started, ended = threading.Barrier(8), threading.Barrier(8)
    got, refused = [], []

    def drive(number: int) -> None:
        started.wait()
        try:
            with held(kind(tmp_path)):
                got.append(number)
                ended.wait()
        except StudyError:
            refused.append(number)
            ended.wait()

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_another_machines_holder_that_renews_is_refused_and_a_silent_one_is_taken_over(tmp_path, quick):
    folder = Folder(tmp_path)
    lease_of_another(folder)
    began = time.monotonic()
    with held(folder):
        assert time.monotonic() - began >= Lease.silent_s
    lease_of_another(folder)
    renewal = threading.Timer(0.2, lambda: lease_of_another(folder, beat=2))
    renewal.start()
    with pytest.raises(StudyError, match="in use by process 1 on elsewhere since then"), held(folder):
        pass
    renewal.join()


def test_another_machines_holder_that_ends_meanwhile_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(Lease, "silent_s", 5.0)
    folder = Folder(tmp_path)
    lease_of_another(folder)
    ending = threading.Timer(0.2, lambda: folder.remove(_FILE))
    ending.start()
    began = time.monotonic()
    with held(folder):
        assert time.monotonic() - began < 4
    ending.join()


def test_a_holder_that_was_taken_for_dead_learns_of_it_and_leaves_the_lease_alone(tmp_path, quick, caplog):
    with held(Folder(tmp_path)) as lease:
        lease.check()
        lease_of_another(Folder(tmp_path))
        deadline = time.monotonic() + 5
        while lease._taken_by is None and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(StudyError, match="in use by process 1 on elsewhere"):
            lease.check()
    assert json.loads((tmp_path / _FILE).read_text())["token"] == "other"


def test_a_lease_is_renewed_and_made_again_where_it_was_removed(tmp_path, quick):
    with held(Folder(tmp_path)):
        beats = set()
        deadline = time.monotonic() + 5
        while len(beats) < 3 and time.monotonic() < deadline:
            beats.add(json.loads((tmp_path / _FILE).read_text())["beat"])
        assert len(beats) == 3
        (tmp_path / _FILE).unlink()
        while not (tmp_path / _FILE).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / _FILE).exists()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 5000, b'{"token": 1}', b"\xff", json.dumps({"pid": "x" * 9}).encode()]
)
def test_a_lease_that_nobody_of_ours_has_written_holds_nobody_up(tmp_path, content):
    (tmp_path / _FILE).write_bytes(content)
    with held(Folder(tmp_path)):
        pass


def test_a_number_that_was_given_to_another_process_since_is_a_dead_ones(tmp_path):
    with held(Folder(tmp_path)):
        mine = json.loads((tmp_path / _FILE).read_text())
    lease_of_another(Folder(tmp_path), **mine | {"started": mine["started"] + 1})
    with held(Folder(tmp_path)):
        pass


def test_a_place_that_cannot_be_written_is_bad_input_and_a_full_disk_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    refusal = pytest.raises(StudyError, match=r"--storage: got .*; allowed: a folder that can be written \(")
    with refusal, Results(tmp_path / "file").held():
        pass

    def full(*_: object) -> None:
        raise StorageError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(Folder, "put", full)
    with pytest.raises(StorageError, match="No space left on device"), Results(tmp_path).held():
        pass


def test_results_that_are_held_can_be_sent_to_workers(tmp_path):
    results = Results(tmp_path)
    with results.held():
        copy = pickle.loads(pickle.dumps(results))
        copy.release()
        assert (tmp_path / _FILE).exists()


def test_in_an_object_store_the_last_writer_has_it(uri, quick):
    with held(storage_at(uri)), pytest.raises(StudyError, match=f"in use by process {os.getpid()} on "):
        Lease(storage_at(uri)).acquire()
    with pytest.raises(FileNotFoundError):
        storage_at(uri).read(_FILE)


def test_the_report_at_the_end_is_of_the_study_that_was_run_here(tmp_path):
    from qsgd_ray.study.run import _finished
    from qsgd_ray.tracking.background import Tracking

    study = made({"adamw": runs([0.9, 0.91, 0.92])})
    study.write(tmp_path)
    results = Results(tmp_path)
    with results.held() as lease:
        results.open(a_study(name="made", question="Another?"), {})
        result = _finished(study.study, results, lease, Tracking([], results), None)
    assert result.study == study.study
    assert study.study.question in result.page.read_text()


def test_who_holds_a_storage_is_known_without_writing_to_it(tmp_path):
    assert present_holder(Folder(tmp_path / "none")) is None
    with held(Folder(tmp_path)):
        before = sorted(tmp_path.iterdir()), (tmp_path / _FILE).read_bytes()
        known = present_holder(Folder(tmp_path))
        assert (known.pid, known.host, known.lives) == (os.getpid(), socket.gethostname(), True)
        assert (sorted(tmp_path.iterdir()), (tmp_path / _FILE).read_bytes()) == before
    assert present_holder(Folder(tmp_path)) is None


def test_a_dead_holder_and_a_silent_one_of_another_machine_are_told_apart(tmp_path, quick):
    folder = Folder(tmp_path)
    lease_of_another(folder)
    assert present_holder(folder).lives is None
    began = time.monotonic()
    assert present_holder(folder, watch_s=0.3).lives is None
    assert 0.3 <= time.monotonic() - began < 3
