"""A private Ray on a crowded machine: a node that was late is started again, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest
import ray
from support.command_line import said_by

from qsgd_ray.execution.connection import _LATE, _STARTS, _start_patiently, private_ray
from qsgd_ray.execution.errors import RayLost


class Late:
    """Is late so many times, each time leaving a process behind; then it starts."""

    def __init__(self, times: int, told: str = f"The current node {_LATE}.") -> None:
        self.times, self.told = times, told
        self.left: list[subprocess.Popen] = []

    def __call__(self) -> None:
        if len(self.left) < self.times:
            self.left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
            raise Exception(self.told)

    def alive(self) -> list[bool]:
        return [one.poll() is None for one in self.left]

    def end(self) -> None:
        for one in self.left:
            one.kill()
            one.wait()


@pytest.fixture
def late():
    made: list[Late] = []

    def make(*words) -> Late:
        made.append(Late(*words))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_what_a_late_start_left_behind_is_ended_and_what_was_there_before_stays(late, tmp_path):
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        start = late(_STARTS - 1)
        _start_patiently(start, str(tmp_path))
        for one in start.left:
            one.wait(10)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()


def test_a_node_that_is_late_every_time_is_told(late, tmp_path):
    start = late(_STARTS)
    with pytest.raises(Exception, match=_LATE):
        _start_patiently(start, str(tmp_path))
    assert len(start.left) == _STARTS


def test_any_other_error_is_told_at_once(late, tmp_path):
    start = late(_STARTS, "no room in the object store")
    with pytest.raises(Exception, match="no room"):
        _start_patiently(start, str(tmp_path))
    assert start.alive() == [True]


def test_a_ray_that_does_not_start_is_one_line_and_what_it_was_given_is_gone(monkeypatch, tmp_path):
    folders = []

    def init(**settings):
        folders.append(Path(settings["_temp_dir"]).parent)
        raise OSError("no port is free\n" + "trace\n" * 9)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RayLost) as error, private_ray(1):
        pytest.fail("it started")
    assert str(error.value) == (
        "Ray did not start (no port is free). What is finished is kept; the same command tries again"
    )
    assert not folders[0].exists()


def test_a_command_that_ray_fails_is_one_line_and_exit_code_1(monkeypatch, capsys, tmp_path):
    def lost(*_):
        raise RayLost("Ray did not start")

    monkeypatch.setattr("qsgd_ray.results.read", lost)
    monkeypatch.setattr("qsgd_ray.study.replay.stored_trial", lost)
    assert said_by(monkeypatch, capsys, "replay", tmp_path, "x") == (1, "qsgd-ray: Ray did not start\n")
