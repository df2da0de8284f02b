"""A private Ray on a crowded machine: a node that was late is started again, and leaves nothing behind."""

import signal
import subprocess
import sys

import psutil
import pytest
from support.processes import lives

from qsgd_ray.execution.connection import LATE, STARTS, end, start_patiently


class Late:
    """Is late so many times, each time leaving a process behind; then it starts."""

    def __init__(self, times: int, told: str = f"The current node {LATE}.") -> None:
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


def test_what_a_late_start_left_behind_is_ended_and_what_was_there_before_stays(late):
    mine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        start = late(STARTS - 1)
        start_patiently(start)
        for one in start.left:
            one.wait(10)
        assert mine.poll() is None
    finally:
        mine.kill()
        mine.wait()


def test_a_node_that_is_late_every_time_is_told(late):
    start = late(STARTS)
    with pytest.raises(Exception, match=LATE):
        start_patiently(start)
    assert len(start.left) == STARTS


def test_any_other_error_is_told_at_once(late):
    start = late(STARTS, "no room in the object store")
    with pytest.raises(Exception, match="no room"):
        start_patiently(start)
    assert start.alive() == [True]


ENDED = """
import time
import psutil
from qsgd_ray.execution.connection import _is_of_ray, _lives, private_ray

def others():  # its own processes start such that live for a moment
    return [process for process in family if not _is_of_ray(process) and _lives(process)]

with private_ray(1):
    family = psutil.Process().children(recursive=True)
    patience = time.monotonic() + 20
    while others() and time.monotonic() < patience:
        time.sleep(0.1)
    assert not others(), [process.cmdline() for process in others()]
print(*[process.pid for process in family])
"""


def test_a_private_ray_leaves_none_of_its_processes_behind():
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pids = [int(word) for word in done.stdout.splitlines()[-1].split()]
    assert len(pids) >= 4
    assert not [pid for pid in pids if psutil.pid_exists(pid) and lives(psutil.Process(pid))]


def test_what_outlives_its_ray_is_ended(monkeypatch):
    """As agents do whose raylet was killed: left alone, they try for a minute to tell a head that is gone."""
    monkeypatch.setattr("qsgd_ray.execution.connection.GRACE_S", 0.2)
    stubborn = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    processes = [psutil.Process(own.pid) for own in (stubborn, ended)]
    ended.wait()
    end(processes)
    assert stubborn.wait(10) == -signal.SIGKILL
