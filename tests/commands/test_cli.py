"""The command line: exit code 2 and one line for bad input, a whole study in one command, Ctrl-C keeps the rows."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.command_line import STUDY, command, said_by
from support.places import TESTS
from support.processes import lives, wait_until
from support.run_contexts import timeless

from qsgd_ray import __version__, cli
from qsgd_ray.commands import run as commands_run
from qsgd_ray.results import Results, read
from qsgd_ray.storage import StorageError


@pytest.fixture(scope="module")
def study_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("study") / "small.py"
    path.write_text(STUDY)
    return path


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
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
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


def test_sigterm_before_the_first_trial_is_exit_code_143_and_no_traceback(monkeypatch, capsys, study_file, tmp_path):
    from qsgd_ray.execution import preflight

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setattr(preflight, "require_runnable", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        code, told = said_by(monkeypatch, capsys, "run", study_file, "--storage", tmp_path)
        os.kill(os.getpid(), signal.SIGTERM)  # a second one does not cut short what is left to do
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (code, told) == (143, "")


def test_a_store_that_fails_amid_a_study_is_one_line_and_exit_code_1(monkeypatch, capsys, study_file, tmp_path):
    def fail(*_):
        raise StorageError("s3://studies/x: no answer within 60 s")

    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setattr(commands_run, "_run", fail)
    code, told = said_by(monkeypatch, capsys, "run", study_file, "--storage", tmp_path)
    assert (code, told) == (1, "qsgd-ray: s3://studies/x: no answer within 60 s\n")


def test_the_version_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["qsgd-ray", "--version"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def rows_in(storage: Path) -> list[dict]:
    return [timeless(row) for row in read(storage / "small").trials.to_pylist()]


@pytest.fixture(scope="module")
def whole(study_file, tmp_path_factory):
    storage = tmp_path_factory.mktemp("whole")
    done = subprocess.run(**command("run", study_file, "--storage", storage), timeout=400)
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
        (stage, arm, ending)
        for stage, endings in (("confirm", ("completed",) * 2), ("search", ("completed", "stopped_early")))
        for arm in ("adamw", "circuit")
        for ending in endings
    ]
    assert {row["seed"] for row in rows if row["stage"] == "confirm"} == {11, 12}
    assert all((row["test_accuracy"] is None) == (row["stage"] == "search") for row in rows)
    kept = json.loads((folder / "provenance.json").read_text())
    assert kept["search_is_deterministic"] is True
    assert kept["packages"]["torch"]
    assert (folder / "study.py").read_text() == STUDY


@pytest.mark.parametrize("trial", ["search-circuit-000", "confirm-circuit-s11"])
def test_a_trial_of_a_study_comes_out_again_on_one_worker_and_on_two(whole, trial):
    """The study's pool answered its circuits, here the workers do it themselves: the same bits."""
    done = subprocess.run(**command("replay", whole[0] / "small", trial), timeout=400)
    assert done.returncode == 0, done.stdout
    assert "The same bits: completed, 2 measurements, parameters " in done.stdout
    assert "Made elsewhere" not in done.stdout


@pytest.fixture(scope="module")
def interrupted(study_file, tmp_path_factory):
    """A study ended by Ctrl-C as a terminal sends it, by SIGTERM and by a hang-up: exit codes, words, rows."""
    storage, ends = tmp_path_factory.mktemp("interrupted"), []
    for interrupt in (
        lambda pid: os.killpg(pid, signal.SIGINT),
        lambda pid: os.kill(pid, signal.SIGTERM),
        lambda pid: os.killpg(pid, signal.SIGHUP),
    ):
        with subprocess.Popen(**command("run", study_file, "--storage", storage)) as running:
            least = len(ends[-1][2]) if ends else 0
            wait_until(lambda least=least: Results(storage / "small").count() > least, 240, "no trial ended")
            family = psutil.Process(running.pid).children(recursive=True)
            interrupt(running.pid)
            told, _ = running.communicate(timeout=60)
        assert running.returncode > 0, told
        wait_until(lambda gone=family: not any(map(lives, gone)), 30, "Ray still runs")
        ends.append((running.returncode, told, rows_in(storage)))
    return storage, ends


def test_ctrl_c_sigterm_and_a_hang_up_end_cleanly_and_keep_what_is_finished(interrupted):
    _, ends = interrupted
    assert [code for code, _, _ in ends] == [130, 143, 129], "\n".join(told for _, told, _ in ends)
    for _, told, _ in ends:
        assert "finished trials are kept in" in told
        assert "Traceback" not in told
    first, second, third = (rows for _, _, rows in ends)
    assert 0 < len(first) < len(second) < len(third)
    assert all(row in second for row in first)
    assert all(row in third for row in second)


def test_an_interrupted_study_goes_on_by_the_same_command_to_the_same_rows(whole, study_file, interrupted):
    storage, ends = interrupted
    again = subprocess.run(**command("run", study_file, "--storage", storage), timeout=400)
    assert again.returncode == 0, again.stdout
    assert rows_in(storage) == rows_in(whole[0])
    assert all(row in rows_in(storage) for row in ends[-1][2])
