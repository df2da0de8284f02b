"""A private Ray on a crowded machine: a node that was late is started again, and leaves nothing behind."""

import subprocess
import sys

import pytest

from qsgd_ray.execution.connection import _LATE, _STARTS, _start_patiently


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
