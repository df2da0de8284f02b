"""The guard ends a command whose main thread hangs in a call of a library, and leaves every other one alone."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from support.command_line import STUDY, command
from support.processes import STARTS_RAY_S, lives, name_of, wait_until

from qsgd_ray.commands import _exit_guard
from qsgd_ray.commands._exit_guard import ExitGuard, StartingCore

HANGING = """
import ctypes, hashlib, os, signal, sys, threading, time
from pathlib import Path
from rich.console import Console
from qsgd_ray.commands import _exit_guard
from qsgd_ray.commands._interrupts import EndingSignals, command_interrupts
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.errors import RayLost
from qsgd_ray.results import Results

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)
_exit_guard.ExitGuard.__init__.__defaults__ = (float(sys.argv[2]),)
fault = sys.argv[3]
contexts = command_interrupts(EndingSignals(), Console(width=500))


class Core:
    def require_alive(self):
        if fault == "loss":
            raise RayLost.ended("gcs_server")

    private = False


def strike():
    time.sleep(0.5)
    for word in fault.split():
        os.kill(os.getpid(), getattr(signal, word))
        time.sleep(0.5)


with contexts.starting(Results(sys.argv[1])), contexts.running(Results(sys.argv[1]), Core()):
    if fault != "loss":
        threading.Thread(target=strike, daemon=True).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes, and no handler of a signal runs meanwhile
"""
KEPT = "Interrupted. 0 finished trials are kept in "


@pytest.mark.parametrize(
    ("fault", "patience_s", "code", "words"),
    [
        ("SIGHUP", 1, 129, KEPT),
        ("SIGTERM", 1, 143, KEPT),
        ("SIGINT SIGHUP", 1, 130, KEPT),
        ("SIGINT SIGINT", 600, 130, KEPT),
        ("loss", 1, 1, "qsgd-ray: Ray's gcs_server has ended: "),
    ],
)
def test_a_hanging_main_thread_is_ended_in_one_line_by_the_signal_s_own_code(tmp_path, fault, patience_s, code, words):
    script = [sys.executable, "-c", HANGING, tmp_path, str(patience_s), fault]
    done = subprocess.run(script, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done
    assert (done.stdout + done.stderr).startswith(words)
    assert (done.stdout + done.stderr).count("\n") == 1


def quiet(*_):
    pytest.fail("the guard struck")


def test_a_block_that_ends_in_time_is_left_alone_and_the_file_of_wake_ups_is_put_back():
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    wakes, woken = os.pipe()
    os.set_blocking(woken, False)
    old = signal.set_wakeup_fd(woken)
    try:
        with ExitGuard((signal.SIGTERM,), quiet, quiet, lambda: False, patience_s=60).watching():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.set_wakeup_fd(old) == woken
    finally:
        signal.set_wakeup_fd(old)
        signal.signal(signal.SIGTERM, before)
        os.close(wakes)
        os.close(woken)
    assert not [each for each in threading.enumerate() if each.name == "exit guard"]


def test_a_core_that_comes_again_in_time_is_not_lost():
    lost = iter([True, False] * 1000)
    with ExitGuard((), quiet, quiet, lambda: next(lost), patience_s=0.7).watching():
        time.sleep(3)


def test_in_another_thread_nothing_is_watched():
    def run():
        with ExitGuard((), quiet, quiet, lambda: True, patience_s=0).watching():
            time.sleep(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_a_starting_core_is_lost_once_its_gcs_is_gone_and_found_where_another_one_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(_exit_guard, "_GCS", "gcs_of_a_test")  # this process may have a Ray with a real one
    program = tmp_path / "gcs_of_a_test"
    program.symlink_to("/bin/sleep")
    core = StartingCore()
    assert not core.is_lost()
    for _ in range(2):
        with subprocess.Popen([program, "60"]) as gcs:
            wait_until(lambda: not core.is_lost() and core._pid == gcs.pid, 10, "it is not seen")
            gcs.kill()
            wait_until(core.is_lost, 10, "it counts as alive")
        assert core.is_lost()


@pytest.mark.ray
@pytest.mark.kill
@pytest.mark.xdist_group("killed")
@pytest.mark.timeout(STARTS_RAY_S)
@pytest.mark.parametrize("hang_up", [False, True])
def test_a_gcs_that_is_killed_while_ray_starts_is_one_line_of_the_command_s_own(tmp_path, hang_up):
    study_file = tmp_path / "small.py"
    study_file.write_text(STUDY)
    with subprocess.Popen(**command("run", study_file, "--storage", tmp_path)) as running:
        driver = psutil.Process(running.pid)

        def gcs():
            return [each for each in driver.children() if name_of(each) == "gcs_server"]

        wait_until(gcs, 120, "no GCS")
        family = driver.children(recursive=True)
        gcs()[0].kill()
        if hang_up:
            time.sleep(1)
            running.send_signal(signal.SIGHUP)
        out, _ = running.communicate(timeout=90)
    last = out.splitlines()[-1]
    if hang_up:
        assert running.returncode == 129, out
        assert last.startswith(KEPT)
    else:
        assert running.returncode == 1, out
        assert last.startswith("qsgd-ray: Ray")
        assert last.endswith(("the same command goes on from there", "the same command tries again"))
    assert not any(word in out for word in ("Traceback", "state-dump", "The program will terminate")), out
    wait_until(lambda: not any(map(lives, family)), 60, "processes live on")
