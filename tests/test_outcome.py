"""An error tells of the trial, or of the machine that it ran on."""

from dataclasses import asdict

import pytest

from qsgd_ray.outcome import (
    RAISED_IN,
    Ending,
    Measurement,
    environment_error,
    error_lines,
    failure_ending,
    user_error,
    user_line,
)
from qsgd_ray.results._rows import metrics_text

TRACE = 'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    raise_it()\n'
CHAIN = "\nDuring handling of the above exception, another exception occurred:\n\n"


@pytest.mark.parametrize(
    "line",
    [
        "ModuleNotFoundError: No module named 'qiskit_aer'",
        "ImportError: libcudart.so.12: cannot open shared object file",
        "qsgd_ray.circuits.errors.CircuitError: backend aer: needs qiskit-aer; install qsgd-ray[aer]",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 64.0 GiB for an array",
        "MemoryError",
        "RuntimeError: No CUDA GPUs are available",
        "AssertionError: Torch not compiled with CUDA enabled",
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/gsm8k/train.jsonl'",
        "qsgd_ray.config.errors.StudyError: workload.data.path: got '/data'; allowed: a folder with GSM8K",
    ],
)
def test_what_a_machine_lacks_is_told_from_a_traceback(line):
    said = line.rpartition("Error: ")[2]
    for text in (f"{TRACE}{line}\n", f"rank 0: {TRACE}{line}\nrank 1: {TRACE}RuntimeError: Connection closed by peer"):
        assert said in (environment_error(text) or "")
        assert failure_ending(text) is Ending.UNAVAILABLE


@pytest.mark.parametrize(
    "text",
    [
        f"{TRACE}ValueError: shapes do not match\n",
        f"{TRACE}ModuleNotFoundError: No module named 'fast'\n{CHAIN}{TRACE}ValueError: a bug after all\n",
        f"{TRACE}KeyError: 'x'\n",
        f"{TRACE}qsgd_ray.circuits.errors.CircuitError: aer: wrong angles\n",
        f"rank 0: {TRACE}ValueError: a bug\nrank 1: {TRACE}RuntimeError: Connection closed by peer",
        "ValueError: ImportError is a word here",
        "no traceback at all",
        "",
    ],
)
def test_a_bug_of_a_trial_stays_its_own(text):
    assert environment_error(text) is None
    assert failure_ending(text) is Ending.FAILED
    assert environment_error(None) is None


def test_the_last_line_of_each_rank_says_why():
    text = f"rank 0: {TRACE}a.b.OneError: first\nrank 1: {TRACE}TwoError: second\n"
    assert error_lines(text) == ["OneError: first", "TwoError: second"]


def test_the_last_line_of_the_user_s_files_is_told():
    text = f"{TRACE}RuntimeError: shapes differ\n{RAISED_IN}mine.py, line 31, in loss\n"
    assert user_line(text) == "mine.py, line 31, in loss"
    assert user_error(text) == "mine.py, line 31, in loss: RuntimeError: shapes differ"
    assert error_lines(text) == ["RuntimeError: shapes differ"]
    assert user_error(f"rank 0: {text}rank 1: {text}") == user_error(text)
    assert user_error(None) is None
    assert user_error(f"{TRACE}RuntimeError: no") is None


def test_a_measurement_is_that_of_its_row():
    measurement = Measurement(1, 2, 0.5, 0.0, 0, 1.0, 2.0, None, metrics={"mse": 0.5, "odd": None})
    row = asdict(measurement) | {"metrics": metrics_text(measurement.metrics), "trial_id": "x"}
    assert Measurement.from_row(row) == measurement
    plain = Measurement(1, 2, 0.5, 0.0, 0, 1.0, 2.0, 0.5)
    assert Measurement.from_row(asdict(plain)) == plain
