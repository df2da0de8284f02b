"""A disk that is full or fails is one line; nothing half written stays, and what counts as written is synced."""

import errno
import os
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.command_line import STUDY, said_by
from support.places import TESTS
from support.small_study import a_study

from qsgd_ray.config import StudyError
from qsgd_ray.results import Results
from qsgd_ray.storage import Folder, StorageError, _atomic
from qsgd_ray.storage._atomic import hidden_sibling, is_abandoned, replacing
from qsgd_ray.storage.process_id import _this_process, process_id


class FailingOs:
    """The module os, in which the n-th call of some functions fails; None: none does."""

    def __init__(self, number: int, fails_at: int | None):
        self._number, self._fails_at = number, fails_at
        self.calls: list[str] = []

    def __getattr__(self, name):
        function = getattr(os, name)
        if name not in ("open", "fsync", "replace"):
            return function

        def call(*arguments, **options):
            self.calls.append(name)
            if len(self.calls) - 1 == self._fails_at:
                raise OSError(self._number, os.strerror(self._number))
            return function(*arguments, **options)

        return call


KINDS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
ORDER = ["open", "fsync", "replace", "open", "fsync"]


def test_a_file_is_synced_before_it_gets_its_name_and_its_name_after(tmp_path, monkeypatch):
    calls = FailingOs(0, None)
    monkeypatch.setattr(_atomic, "os", calls)
    Folder(tmp_path).put("a", b"1")
    assert calls.calls == ORDER


def test_a_folder_is_synced_with_everything_in_it(tmp_path, monkeypatch):
    calls = FailingOs(0, None)
    monkeypatch.setattr(_atomic, "os", calls)
    with replacing(tmp_path / "folder") as partial:
        (partial / "below").mkdir(parents=True)
        (partial / "below" / "file").touch()
    assert calls.calls.count("fsync") == 4
    assert calls.calls[-3:] == ["replace", "open", "fsync"]


@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
@pytest.mark.parametrize("fails_at", range(len(ORDER)))
def test_wherever_a_write_fails_the_file_is_whole_and_nothing_else_stays(tmp_path, monkeypatch, number, fails_at):
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(_atomic, "os", FailingOs(number, fails_at))
    with pytest.raises(StorageError) as error:
        Folder(tmp_path).put("a", b"new")
    assert str(error.value) == f"{tmp_path}/a: {os.strerror(number)}"
    assert error.value.errno == number
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() in (b"old", b"new")


@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
def test_content_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, number):
    def fail(path, content):
        path.touch()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StorageError):
        Folder(tmp_path).put("a", b"new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
def test_every_use_of_a_folder_fails_as_a_store_does(tmp_path, monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    folder = Folder(tmp_path)
    folder.put("a", b"")
    for module, name, use in (
        (os, "open", lambda: folder.read("a")),
        (os, "listdir", lambda: folder.names("", "")),
        (Path, "unlink", lambda: folder.remove("a")),
        (Path, "mkdir", lambda: folder.create_folders("b")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(StorageError) as error:
                use()
        assert str(error.value).endswith(os.strerror(number))


def test_a_file_system_that_syncs_no_folders_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(_atomic, "os", FailingOs(errno.EINVAL, 4))
    Folder(tmp_path).put("a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_line_leaves_no_partial_file_and_is_gone_on_with_once_there_is_room(small_disk):
    folder = Folder(small_disk)
    folder.put("ballast", bytes(40_000))
    with pytest.raises(StorageError, match=r"big: No space left on device$") as error:
        folder.put("big", bytes(40_000))
    assert error.value.is_of_disk
    assert os.listdir(small_disk) == ["ballast"]
    folder.remove("ballast")
    folder.put("big", bytes(40_000))
    assert os.listdir(small_disk) == ["big"]


def test_the_command_on_a_full_disk_is_one_line_and_exit_code_1(small_disk, tmp_path, monkeypatch, capsys):
    Results(small_disk / "small").open(a_study(), {})
    with open(small_disk / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(1024))
    before = sorted(small_disk.rglob("*"))
    (tmp_path / "small.py").write_text(STUDY)
    monkeypatch.syspath_prepend(str(TESTS))
    for words in (("run", tmp_path / "small.py", "--storage", small_disk), ("report", small_disk / "small")):
        code, told = said_by(monkeypatch, capsys, *words)
        assert code == 1, told
        assert told.endswith(": No space left on device\n")
        assert told.count("\n") == 1
    assert sorted(small_disk.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr(_atomic, "os", FailingOs(errno.EROFS, 0))
    with pytest.raises(StudyError, match=r"--storage: got .*; allowed: a folder that can be written \(Read-only"):
        Results(tmp_path).open(a_study(), {})


KILLED = """
import os, pathlib, signal, sys
from qsgd_ray.storage._atomic import replacing
with replacing(pathlib.Path(sys.argv[1]) / "trials" / "x.parquet") as partial:
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes_with_the_next_opening_and_a_living_writers_stays(tmp_path):
    results = Results(tmp_path)
    results.open(a_study(), {})
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(list((tmp_path / "trials").iterdir())) == 1
    with replacing(tmp_path / "trials" / "y.parquet") as living:
        living.write_bytes(b"half")
        results.open(a_study(), {})
        assert list((tmp_path / "trials").iterdir()) == [living]
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["y.parquet"]


def test_of_another_machines_writers_the_age_decides():
    me = _this_process()
    mine = hidden_sibling(Path("x")).name
    assert not is_abandoned(mine, 1e9)
    assert is_abandoned(mine.replace(f"-{me.pid}-", f"-{2**22 + 1}-"), 0)
    assert is_abandoned(mine.replace(f"-{me.started}.", f"-{me.started + 1}."), 0)
    other = mine.replace(me.machine, "0" * 8)
    before = f".x.{uuid.uuid4().hex}"
    for name in (other, before):
        assert not is_abandoned(name, 3600)
        assert is_abandoned(name, 2 * 86_400)
    for name in ("x", ".hidden", ".study.json.swp", "." + "a" * 40):
        assert not is_abandoned(name, 1e9)


def test_a_process_is_dead_once_it_has_ended_and_nobody_knows_of_another_machine():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    known = process_id(process.pid)
    assert known.is_dead() is False
    assert _this_process().is_dead() is False
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert known.is_dead() is True
    process.wait()
    assert known.is_dead() is True
    assert process_id(process.pid).is_dead() is True
    assert replace(known, machine="0" * 8).is_dead() is None
