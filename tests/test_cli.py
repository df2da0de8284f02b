"""The command line: exit code 2 and one line for bad input, a whole study in one command, Ctrl-C keeps the rows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_distributed import timeless

from qsgd_ray import __version__, cli
from qsgd_ray.results import read

STUDY = """
from made import a_study
from qsgd_ray.config import Arm, LogUniform, Perturbation

rate = LogUniform(low=1e-3, high=1e-2)
STUDY = a_study(
    question="Does it run <whole>?",
    arms=(
        Arm(name="adamw", learning_rate=rate),
        Arm(name="circuit", learning_rate=rate, perturbation=Perturbation(source="circuit", n_qubits=2)),
    ),
)
"""


@pytest.fixture(scope="module")
def study_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("study") / "small.py"
    path.write_text(STUDY)
    return path


def said_by(monkeypatch, capsys, *words: object) -> tuple[int, str]:
    """Exit code and standard error of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["qsgd-ray", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--set", "arms.circuit.perturbation.lambda_=-1"],
            "arms.circuit.perturbation.lambda_: got -1; allowed: a numb",
        ),
        (
            ["--set", "arms.circuit.perturbation.n_qubits=0"],
            "arms.circuit.perturbation.n_qubits: got 0; allowed: a who",
        ),
        (
            ["--set", "arms.circuit.perturbation.n_qubits=40", "--set", "arms.circuit.perturbation.depth=30"],
            "arms.circuit.perturbation.n_qubits: got 40 at depth 30,",
        ),
        (["--set", "arms.circuit.frob=1"], "--set arms.circuit.frob: got 'frob'; allowed in arms.circuit: name, learn"),
        (["--address", "127.0.0.1:1"], "--address: got '127.0.0.1:1'; allowed: the address of a running Ray cluster ("),
        (["--address", "ray://127.0.0.1:99999"], "--address: got 'ray://127.0.0.1:99999'; allowed: the address of a r"),
        (
            ["--storage", "/dev/null/results"],
            "--storage: got /dev/null/results/small; allowed: a folder that can be wr",
        ),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_no_traceback(monkeypatch, capsys, study_file, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    code, told = said_by(monkeypatch, capsys, "run", study_file, *words)
    assert code == 2
    assert said in told
    assert told.count("\n") == 1
    assert "Traceback" not in told


def test_a_missing_study_and_a_missing_result_are_one_line(monkeypatch, capsys, tmp_path):
    for words, said in (
        (("run", tmp_path / "none.py"), "study file: got"),
        (("report", tmp_path / "none"), "DIR: got"),
    ):
        code, told = said_by(monkeypatch, capsys, *words)
        assert code == 2
        assert said in told
        assert told.count("\n") == 1


def test_the_version_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["qsgd-ray", "--version"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def command(*words: object) -> dict:
    """How to start the command as a user would, in a group of its own, as a shell does."""
    return {
        "args": [sys.executable, "-m", "qsgd_ray.cli", *map(str, words)],
        "env": os.environ | {"PYTHONPATH": str(Path(__file__).parent), "COLUMNS": "100"},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "start_new_session": True,
    }


def rows_in(storage: Path) -> list[dict]:
    return [timeless(row) for row in read(storage / "small").trials.to_pylist()]


@pytest.fixture(scope="module")
def whole(study_file, tmp_path_factory):
    storage = tmp_path_factory.mktemp("whole")
    done = subprocess.run(**command("run", study_file, "--storage", storage), timeout=200)
    return storage, done


def test_one_command_runs_a_study_to_its_verdict_and_its_report(whole):
    storage, done = whole
    assert done.returncode == 0, done.stdout
    folder = storage / "small"
    assert f"Report: {folder / 'report.html'}" in done.stdout
    assert "inconclusive" in done.stdout, "two pairs of runs carry no verdict"
    assert "Traceback" not in done.stdout
    rows = read(folder).trials.to_pylist()
    stages = [(row["stage"], row["arm"], row["ending"]) for row in rows]
    assert sorted(stages) == [
        (stage, arm, "completed") for stage in ("confirm", "search") for arm in ("adamw", "circuit") for _ in range(2)
    ]
    assert {row["seed"] for row in rows if row["stage"] == "confirm"} == {11, 12}
    assert all((row["test_accuracy"] is None) == (row["stage"] == "search") for row in rows)
    kept = json.loads((folder / "provenance.json").read_text())
    assert kept["search_is_deterministic"] is True
    assert kept["packages"]["torch"]
    assert (folder / "study.py").read_text() == STUDY


def wait_until(holds, deadline_s: float, what: str) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < deadline_s, what
        time.sleep(0.05)


def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on_to_the_same_rows(whole, study_file, tmp_path):
    words = command("run", study_file, "--storage", tmp_path)
    with subprocess.Popen(**words) as running:
        trials = tmp_path / "small" / "trials"
        wait_until(lambda: any(trials.glob("search-*")), 120, "no trial ended")
        family = psutil.Process(running.pid).children(recursive=True)
        os.killpg(running.pid, signal.SIGINT)
        told, _ = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert "finished trials are kept in" in told
    assert "Traceback" not in told
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family), 30, "Ray is still running")
    kept = rows_in(tmp_path)
    assert kept
    again = subprocess.run(**words, timeout=200)
    assert again.returncode == 0, again.stdout
    assert rows_in(tmp_path) == rows_in(whole[0])
    assert all(row in rows_in(tmp_path) for row in kept)
