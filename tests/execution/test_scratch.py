"""Scratch folders: gone with their owner, those of killed owners gone with the next one, never a living owner's."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qsgd_ray.execution import _scratch as scratch
from qsgd_ray.execution._scratch import _MAX_PATH_BYTES, PREFIX, scratch_folder

OWNER = """
import sys, time
from pathlib import Path
from qsgd_ray.execution._scratch import scratch_folder

with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process and the folder that it owns."""
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True) as running:
        yield running, Path(running.stdout.readline().strip())
        running.kill()


def test_a_folder_is_its_owners_alone_and_ends_with_the_block(tmp_path):
    def fail():
        with scratch_folder(tmp_path) as folder:
            assert folder.parent == tmp_path
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "file").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_owner_left_is_gone_with_the_next_one_and_a_living_owners_is_not(owner, tmp_path):
    running, left = owner
    with scratch_folder(tmp_path):
        assert (left / "below" / "file").read_text() == "x"
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert left.exists(), "a killed owner cannot clear away"
    with scratch_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_two_owners_in_one_process_leave_each_other_alone(tmp_path):
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert first != second
        assert sorted(tmp_path.iterdir()) == sorted([first, second])


def test_what_is_not_a_scratch_folder_is_left_alone(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for folder in (elsewhere, tmp_path / "qsgd-ray-of-another-make"):
        folder.mkdir()
        (folder / "file").write_text("x")
    (tmp_path / f"{PREFIX}file").write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    with scratch_folder(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_taken_away_before_its_lock_is_replaced(tmp_path, monkeypatch):
    """Another process clears away between the making and the opening, then between the opening and the locking."""
    made, opened = [], []
    mkdtemp, flock = tempfile.mkdtemp, fcntl.flock

    def make(**where):
        made.append(mkdtemp(**where))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    def lock(file, how):
        opened.append(file)
        if len(made) == 2:
            os.rmdir(made[1])
        return flock(file, how)

    monkeypatch.setattr(scratch.tempfile, "mkdtemp", make)
    monkeypatch.setattr(scratch.fcntl, "flock", lock)
    with scratch_folder(tmp_path) as folder:
        assert [Path(path).exists() for path in made] == [False, False, True]
        assert str(folder) == made[2]
    assert len(opened) == 2


def test_where_nothing_can_be_locked_nothing_is_taken_for_a_dead_owners(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(scratch.fcntl, "flock", refuse)
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        assert first.exists()
        assert second.exists()
    assert not list(tmp_path.iterdir())


def test_owners_that_come_and_go_at_the_same_time_never_lose_a_folder(tmp_path):
    def use(number):
        with scratch_folder(tmp_path) as folder:
            (folder / "mine").write_text(str(number))
            with scratch_folder(tmp_path):
                return (folder / "mine").read_text() == str(number)

    with ThreadPoolExecutor(8) as owners:
        assert all(owners.map(use, range(200)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("room", "place"), [(_MAX_PATH_BYTES, None), (_MAX_PATH_BYTES + 1, "/tmp")])
def test_the_place_is_that_of_temporary_files_if_the_path_of_a_socket_fits(monkeypatch, room, place):
    usual = "/" + "x" * (room - 1)
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: usual)
    assert scratch._default_parent() == Path(place or usual)


def test_the_longest_place_has_room_for_the_sockets_of_ray():
    from ray._private.utils import validate_socket_filepath

    session = "session_2026-11-24_15-03-42_421037_4194304"
    name = Path(tempfile.mkdtemp(prefix=PREFIX))
    name.rmdir()
    path = Path("/", "x" * (_MAX_PATH_BYTES - 1), name.name, "r", session, "sockets", "plasma_store")
    validate_socket_filepath(str(path))
    assert len(str(path)) <= 103, "the limit on macOS"
