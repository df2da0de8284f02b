"""A handler of SIGTERM outlives C code that puts the system's default in its place, as Ray's does when it ends."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest
from support.processes import STARTS_RAY_S

from qsgd_ray.execution._kept_sigterm import kept_sigterm


@pytest.fixture
def received():
    """Signals that a handler of this process has got."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def set_system_default():
    set_handler = ctypes.pythonapi.PyOS_setsig
    set_handler.argtypes = ctypes.c_int, ctypes.c_void_p
    set_handler(signal.SIGTERM, None)


def test_a_signal_in_the_block_and_behind_it_is_handled(received):
    with kept_sigterm():
        set_system_default()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        set_system_default()
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM] * 2


def test_the_systems_default_stays_so():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with kept_sigterm():
            pass
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


ENDING_RAY = """
import os, signal, threading, time
import ray
from qsgd_ray.execution._kept_sigterm import kept_sigterm

ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
signal.signal(signal.SIGTERM, lambda number, _: print(number, flush=True))
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
with kept_sigterm():
    ray.shutdown()
    time.sleep(1)  # other work of the end
print("ended in order")
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3 * STARTS_RAY_S)
def test_a_signal_while_ray_is_shut_down_is_handled():
    done = subprocess.run([sys.executable, "-c", ENDING_RAY], capture_output=True, text=True, timeout=2 * STARTS_RAY_S)
    assert (done.returncode, done.stdout) == (0, "15\nended in order\n"), done.stderr
