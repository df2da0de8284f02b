"""Signals that end a study's command: one line, the signal's own exit code, whatever else happens on the way out."""

import os
import signal
import subprocess
import sys

import pytest
from rich.console import Console
from support.processes import wait_until

from qsgd_ray.commands._interrupts import EndingSignals, Interrupted, command_interrupts, leave
from qsgd_ray.execution import _session_processes
from qsgd_ray.results import Results
from qsgd_ray.storage import StorageError


class Gone(Exception):
    """The end of a process that goes on."""


@pytest.fixture
def handlers():
    """The usual handlers, whoever started the tests: nohup and shells have some ignored in what they start."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(None, 130), (2, 130), (15, 143), (1, 129)])
def test_who_leaves_says_what_is_kept_also_where_the_store_is_silent(
    monkeypatch, capsys, tmp_path, handlers, number, code
):
    def gone(code):
        raise Gone(code)

    def silent(*_):
        raise StorageError("no answer within 60 s")

    monkeypatch.setattr(os, "_exit", gone)
    results, signals = Results(tmp_path), EndingSignals()
    signals.received = number
    with pytest.raises(Gone, match=f"^{code}$"):
        leave(signals, results, Console())
    assert f"Interrupted. 0 finished trials are kept in {tmp_path}; the same" in capsys.readouterr().out
    monkeypatch.setattr(results.storage, "names", silent)
    with pytest.raises(Gone):
        leave(signals, results, Console())
    told = capsys.readouterr().out
    assert f"What is finished is (how many: no answer within 60 s) kept in {tmp_path}; the same command" in told


@pytest.mark.parametrize(("code", "raised"), [(signal.SIGTERM, Interrupted), (1, SystemExit)])
def test_sigterm_that_meets_ray_s_own_handler_ends_a_study_as_any_other(handlers, code, raised):
    """While Ray starts, its handler is there, and exits by the signal's number."""
    signals = EndingSignals()
    with pytest.raises(BaseException) as end, signals.raised():
        sys.exit(code)
    assert end.type is raised
    assert signals.received == (signal.SIGTERM if raised is Interrupted else None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_error_that_takes_the_place_of_a_signal_changes_no_exit_code(
    monkeypatch, capsys, tmp_path, handlers, number
):
    """Ray's end amid its start raises: what was interrupted is said, and the code is the signal's."""

    def gone(code):
        raise Gone(code)

    monkeypatch.setattr(os, "_exit", gone)
    contexts = command_interrupts(EndingSignals(), Console())

    def interrupted_start():
        with contexts.starting(Results(tmp_path)):
            try:
                os.kill(os.getpid(), number)
            finally:
                raise ConnectionError("Ray's own")

    with pytest.raises(Gone, match=f"^{128 + number}$"):
        interrupted_start()
    assert "Interrupted. 0 finished trials are kept" in capsys.readouterr().out


def test_an_error_without_a_signal_stays_what_it_is(tmp_path, handlers):
    contexts = command_interrupts(EndingSignals(), Console())
    with pytest.raises(ConnectionError), contexts.starting(Results(tmp_path)):
        raise ConnectionError("nobody answers")


def test_a_watchdog_that_was_killed_while_ray_starts_is_started_anew(tmp_path, handlers):
    contexts = command_interrupts(EndingSignals(), Console())
    with _session_processes.watchdog(str(tmp_path), "gone"), contexts.starting(Results(tmp_path / "results")):
        (dog,) = _session_processes._WATCHDOGS
        first = dog.process.pid
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: dog.process.pid != first and dog.process.poll() is None, 20, "no other one")


SIGNALLED_TWICE = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from qsgd_ray.commands._interrupts import EndingSignals

with EndingSignals().raised():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        print("goes on")
"""


def test_a_second_ctrl_c_ends_the_process_at_once_and_no_other_second_signal():
    done = subprocess.run([sys.executable, "-c", SIGNALLED_TWICE], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


SIGNALLED_AT_ONCE = """
import os, signal
for number in (1, 2, 15):
    signal.signal(number, signal.SIG_DFL)
from qsgd_ray.commands._interrupts import EndingSignals, Interrupted

try:
    with EndingSignals().raised():
        # Both come before Python runs a handler, as while the main thread is in a call of Ray.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGHUP})
except Interrupted as interrupt:
    os.kill(os.getpid(), signal.SIGTERM)
    print(interrupt.exit_code, "says what is kept")
"""


def test_signals_that_come_at_once_print_nothing_of_python_s_own_and_cut_no_leave_short():
    done = subprocess.run([sys.executable, "-c", SIGNALLED_AT_ONCE], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "129 says what is kept\n", "")


SIGNALLED_IN_A_CALLBACK = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from qsgd_ray.commands._interrupts import EndingSignals

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):
            pass

signals = EndingSignals()
with signals.raised():
    if "ray.init" in sys.argv:  # it puts a handler of its own in the place
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    Last()
print(signals.received)
"""


@pytest.mark.parametrize("handler", ["ours", "ray.init"])
def test_a_signal_whose_exception_is_lost_in_a_callback_prints_no_traceback_and_is_known(handler):
    words = [sys.executable, "-c", SIGNALLED_IN_A_CALLBACK, handler]
    done = subprocess.run(words, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "15\n", "")


SIGNALLED_AT_THE_END = """
import os, signal
for number in (1, 2, 15):
    signal.signal(number, signal.SIG_DFL)
from qsgd_ray.commands._interrupts import EndingSignals, Interrupted

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        for number in (1, 2, 15):
            kill(pid, number)

os.last = Last()
try:
    with EndingSignals().raised():
        os.kill(os.getpid(), signal.SIGTERM)
except Interrupted as interrupt:
    raise SystemExit(interrupt.exit_code) from None
"""


def test_a_signal_that_comes_while_python_ends_changes_no_exit_code():
    done = subprocess.run([sys.executable, "-c", SIGNALLED_AT_THE_END], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_nohup_lets_a_hang_up_be_ignored_still(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with EndingSignals().raised():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


HUNG_UP = """
import os, pty, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pathlib import Path
from qsgd_ray.commands._interrupts import EndingSignals, Interrupted

pid, terminal = pty.fork()
if pid:
    os.read(terminal, 1)
    os.close(terminal)
    os.waitpid(pid, 0)
    sys.exit()
try:
    with EndingSignals().raised():
        print("begins", flush=True)
        while True:  # a signal that comes just before a long sleep would be handled after it
            time.sleep(0.05)
except Interrupted as interrupt:
    print("Interrupted.", flush=True)
    Path(sys.argv[1]).write_text(str(interrupt.exit_code))
"""


def test_a_terminal_that_is_gone_keeps_nobody_from_the_way_out(tmp_path):
    subprocess.run([sys.executable, "-c", HUNG_UP, tmp_path / "code"], timeout=60, check=True)
    assert (tmp_path / "code").read_text() == "129"
