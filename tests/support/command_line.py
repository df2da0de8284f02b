"""The command as a user types it: a small study file, and what comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from qsgd_ray import cli
from support.places import TESTS

STUDY = """
from support.small_study import a_study
from qsgd_ray.config import Arm, LogUniform, Perturbation

rate = LogUniform(low=1e-3, high=1e-2)
STUDY = a_study(
    question="Does it run <whole>, [/b] and 2λ?",
    arms=(
        Arm(name="adamw", learning_rate=rate),
        Arm(name="circuit", learning_rate=rate, perturbation=Perturbation(source="circuit", n_qubits=2)),
    ),
)
"""


def said_by(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    """Exit code and standard error of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["qsgd-ray", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0), capsys.readouterr().err


def command_output(monkeypatch, capsys, *words: object, columns: int = 80) -> str:
    """Standard output of the command on a terminal of so many columns, run in this process; it must succeed."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["qsgd-ray", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    return capsys.readouterr().out


def command(*words: object) -> dict:
    """Return the arguments that start the command as a shell does, in a process group of its own."""
    return {
        "args": [sys.executable, "-m", "qsgd_ray.cli", *map(str, words)],
        "env": os.environ | {"PYTHONPATH": str(TESTS), "COLUMNS": "100"},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "start_new_session": True,
        # What a shell starts in the background ignores Ctrl-C, what nohup starts a hang-up, and what these start too.
        "preexec_fn": lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)],
    }
