"""The processes of a private Ray are found by their session and ended with the study, however that ends."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest
from support.processes import STARTS_RAY_S, lives, name_of, wait_until

from qsgd_ray.execution import _session_processes
from qsgd_ray.execution._session_processes import (
    MARK,
    CoreProcess,
    core_processes,
    end_processes,
    marked,
    session_processes,
    take_leave,
    watchdog,
)
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.errors import RayLost
from qsgd_ray.storage.process_id import process_id

SLEEP = (sys.executable, "-c", "import time; print(flush=True); time.sleep(600)")
# As Ray's agents do: title and environment share a place in memory, and their log lies in the session's folder.
AGENT = """
import os, sys, time
log = open(os.path.join(sys.argv[1], "agent.log"), "w")
print(flush=True)
time.sleep(600)
"""
# The child prints its number and lives on alone.
ORPHAN = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL).pid)"
OWNER = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored in all that it starts
from qsgd_ray.execution._session_processes import marked, watchdog
import subprocess

with watchdog(sys.argv[1]):
    with marked(sys.argv[1]):
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(started.pid, flush=True)
    time.sleep(600)
"""
# A thread that would end the process with another code.
LEAVING = """
import os, subprocess, sys, threading, time
from qsgd_ray.execution._session_processes import marked
from qsgd_ray.execution.connection import Cluster, leave_process

def end():
    time.sleep(0.2)
    os._exit(1)

with marked(sys.argv[1]):
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(started.pid, flush=True)
threading.Thread(target=end).start()
leave_process(143, Cluster(private=True, scratch=sys.argv[1]))
"""
# Ends all at once, as Ray's core ends a process.
SUDDEN = """
import os, sys
from qsgd_ray.execution._session_processes import take_leave, watchdog

with watchdog(sys.argv[1], "what is kept"):
    if sys.argv[2] == "says so":
        take_leave()
    if sys.argv[2] != "ends":
        os._exit(1)
"""
PRIVATE_RAY = """
import subprocess, time
import ray
from qsgd_ray.execution.connection import private_ray

with private_ray(1):
    @ray.remote
    def start_one():
        return subprocess.Popen(["sleep", "600"], start_new_session=True).pid

    ray.get(start_one.remote())
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def started(*words: object, **options):
    """A process that has said its first line, and that line."""
    with subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, text=True, **options) as running:
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def test_a_session_has_what_was_started_within_and_what_that_started_though_its_parent_has_ended(tmp_path):
    session = str(tmp_path)
    with started(*SLEEP) as (before, _):
        with marked(session):
            orphan = psutil.Process(int(subprocess.check_output([sys.executable, "-c", ORPHAN, "sleep", "600"])))
        with started(*SLEEP) as (after, _):
            assert session_processes(session) == [orphan]
            end_processes(session, grace_s=0)
            wait_until(lambda: not lives(orphan), 10, "it lives on")
            assert (before.poll(), after.poll()) == (None, None)
    assert MARK not in os.environ


@pytest.mark.parametrize(("title", "left"), [(sys.executable, {}), ("ray::DashboardAgent", {"RAY_NODE_ID": "ab"})])
def test_who_has_lost_its_environment_is_known_by_its_log_and_who_reads_it_is_not(tmp_path, title, left):
    session, env = str(tmp_path), os.environ | {"RAY_ADDRESS": "auto"}
    with (
        started(title, "-c", AGENT, session, env=left, executable=sys.executable) as (agent, _),
        started("tail", "-f", tmp_path / "agent.log", "/etc/hostname", env=env) as (reader, _),
    ):
        assert [process.pid for process in session_processes(session)] == [agent.pid]
        end_processes(session, grace_s=0)
        assert agent.wait(10) == -signal.SIGKILL
        assert reader.poll() is None


def test_a_core_process_lives_until_it_ends_and_none_of_its_number_later_is_it(tmp_path):
    line = r"^Ray's raylet has ended: .*; the same command goes on from there$"
    with started(*SLEEP) as (running, _):
        core = CoreProcess("raylet", process_id(running.pid))
        assert pickle.loads(pickle.dumps(core)) == core
        cluster = Cluster(private=True, scratch="", core=(core,))
        cluster.require_alive()
        later = CoreProcess("raylet", replace(core.process, started=core.process.started + 1))
        with pytest.raises(RayLost, match=line):
            Cluster(private=True, scratch="", core=(later,)).require_alive()
        running.kill()
        wait_until(core.process.is_dead, 10, "a process that was not reaped counts")
        running.wait()
        with pytest.raises(RayLost, match=line):
            cluster.require_alive()


def test_the_core_of_a_session_is_found_by_its_programs_names(tmp_path):
    assert core_processes(str(tmp_path)) == ()
    raylet = tmp_path / "raylet"
    shutil.copy(shutil.which("sleep"), raylet)
    with marked(str(tmp_path)), started(*SLEEP), subprocess.Popen([raylet, "600"]) as running:
        process = psutil.Process(running.pid)
        try:
            # The system gives a program its name some microseconds before its arguments and its environment.
            wait_until(lambda: name_of(process) == "raylet" and process.cmdline(), 10, "it does not start")
            assert core_processes(str(tmp_path)) == (CoreProcess("raylet", process_id(running.pid)),)
        finally:
            running.kill()


def test_the_watchdog_is_a_script_that_imports_nothing_of_the_package(tmp_path):
    script = (
        f"import runpy, sys; sys.argv = ['x', {str(tmp_path)!r}]; runpy.run_path({_session_processes.__file__!r}, "
        "run_name='__main__'); assert not {name for name in sys.modules if name.startswith('qsgd_ray')}"
    )
    subprocess.run([sys.executable, "-P", "-c", script], stdin=subprocess.DEVNULL, check=True)


def test_what_ends_by_itself_is_waited_for(tmp_path):
    with marked(str(tmp_path)):
        ending = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    end_processes(str(tmp_path), grace_s=60)
    assert ending.wait(10) == 0


def test_a_session_within_another_one_is_its_own(tmp_path):
    with marked("outer"), marked("inner"), started(*SLEEP) as (running, _):
        assert session_processes("outer") == []
        assert [process.pid for process in session_processes("inner")] == [running.pid]


def test_a_hang_up_reaches_none_of_a_session(tmp_path):
    with marked(str(tmp_path)), started(*SLEEP) as (running, _):
        running.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_what_a_process_leaves_behind_its_watchdog_ends(tmp_path, number):
    with started(sys.executable, "-c", OWNER, tmp_path, start_new_session=True) as (owner, pid):
        left, dog = psutil.Process(int(pid)), set(psutil.Process(owner.pid).children()) - {psutil.Process(int(pid))}
        os.killpg(owner.pid, number)
        owner.wait(10)
        assert len(dog) == 1
        wait_until(lambda: not any(map(lives, [left, *dog])), 30, "something lives on")


def test_a_process_that_becomes_the_end_of_its_session_leaves_nothing_and_has_the_code_it_is_given(tmp_path):
    session = tmp_path / "session"
    session.mkdir()
    with started(sys.executable, "-c", LEAVING, session) as (leaving, pid):
        child = psutil.Process(int(pid))
        assert leaving.wait(60) == 143
        assert not lives(child)
    assert not session.exists()


@pytest.mark.parametrize(("how", "line"), [("all at once", "what is kept\n"), ("says so", ""), ("ends", "")])
def test_in_the_place_of_a_process_that_ends_all_at_once_its_watchdog_says_what_is_kept(tmp_path, how, line):
    script = [sys.executable, "-c", SUDDEN, tmp_path, how]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0 if how == "ends" else 1, "", line)


def test_leave_may_be_taken_of_a_watchdog_that_was_killed(tmp_path):
    before = set(psutil.Process().children())
    with watchdog(str(tmp_path), "what is kept"):
        (dog,) = set(psutil.Process().children()) - before
        dog.kill()
        wait_until(lambda: not lives(dog), 10, "it lives on")
        take_leave()
        take_leave()


def test_a_watchdog_that_was_killed_is_started_anew_by_whoever_looks_at_its_ray(tmp_path):
    before = set(psutil.Process().children())
    cluster = Cluster(private=True, scratch=str(tmp_path))
    with watchdog(str(tmp_path)):
        (dog,) = set(psutil.Process().children()) - before
        cluster.require_alive()
        assert set(psutil.Process().children()) - before == {dog}
        dog.kill()
        wait_until(lambda: not lives(dog), 10, "it lives on")
        cluster.require_alive()
        (other,) = set(psutil.Process().children()) - before
        assert lives(other)
    assert set(psutil.Process().children()) == before


def test_a_watchdog_goes_with_its_owner(tmp_path):
    before = set(psutil.Process().children())
    with watchdog(str(tmp_path)):
        assert len(set(psutil.Process().children()) - before) == 1
    assert set(psutil.Process().children()) == before


@pytest.mark.ray
@pytest.mark.kill
@pytest.mark.timeout(STARTS_RAY_S)
@pytest.mark.parametrize("raylet_first", [False, True], ids=["killed", "interrupted after its raylet has died"])
def test_of_a_private_ray_nothing_outlives_its_driver(raylet_first):
    """Ray's agents try for a minute to reach a head that was killed; what a task started knows no head at all."""
    with started(sys.executable, "-c", PRIVATE_RAY, start_new_session=True) as (driver, said):
        assert said == "ready"
        family = {process: name_of(process) for process in psutil.Process(driver.pid).children(recursive=True)}
        assert {"raylet", "sleep", "ray::DashboardAgent", "ray::RuntimeEnvAgent"} <= set(family.values())
        if raylet_first:
            next(process for process, name in family.items() if name == "raylet").kill()
            os.killpg(driver.pid, signal.SIGINT)
        else:
            driver.kill()
        driver.wait(60)
        wait_until(lambda: not any(map(lives, family)), 30, "a part of a private Ray stays")
