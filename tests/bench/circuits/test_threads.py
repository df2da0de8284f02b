"""Each number of threads is a process: its environment, its processors, and what the command makes of it."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from support.command_line import command_output, said_by

from qsgd_ray.bench.circuits import run, threads
from qsgd_ray.bench.rows import _timings


@pytest.fixture
def no_process(monkeypatch):
    asked = []
    monkeypatch.setattr(threads, "run_with_threads", lambda number, words: asked.append((number, words)) or 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return asked


def test_libraries_read_the_number_before_they_are_imported():
    script = (
        "from qsgd_ray.bench.circuits.threads import threads_of_this_process as own\n"
        "number = own()\n"
        "import os, torch\n"
        "print(number, torch.get_num_threads(), len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'],"
        " '--xla_cpu_multi_thread_eigen=false' in os.environ['XLA_FLAGS'])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], env=threads._environment(1), capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["1", "1", "1", "1", "True"]


def test_a_process_of_its_own_gets_the_words_and_gives_its_exit_code(monkeypatch):
    assert threads.threads_of_this_process() is None
    assert threads.run_with_threads(1, ["bench", "circuits", "--help"]) == 0
    assert threads.run_with_threads(1, ["bench", "circuits", "--engine", "none of this name"]) == 2


def test_the_command_runs_once_for_each_number(monkeypatch, capsys, no_process):
    command_output(monkeypatch, capsys, "bench", "circuits", "--quick", "--engine", "auto", "--case", "ring")
    assert [number for number, _ in no_process] == [1, 2]
    words = no_process[0][1]
    assert words[:3] == ["bench", "circuits", "--quick"]
    assert {"--engine=auto", "--case=ring", "--budget=2.0", "--storage=results/bench"} <= set(words)
    command_output(monkeypatch, capsys, "bench", "circuits", "--all", "--threads", 2)
    assert no_process[2][0] == 2
    assert "--all" in no_process[2][1]


def test_more_threads_than_processors_are_refused_in_one_line(monkeypatch, capsys, no_process):
    code, told = said_by(monkeypatch, capsys, "bench", "circuits", "--threads", 3)
    assert (code, no_process) == (2, [])
    assert told == "qsgd-ray: --threads: got 3; allowed: 1 to 2, the processors here\n"


def test_a_process_that_fails_fails_the_command(monkeypatch, capsys):
    monkeypatch.setattr(threads, "run_with_threads", lambda *_: 3)
    code, _ = said_by(monkeypatch, capsys, "bench", "circuits")
    assert code == 3


def test_the_process_of_a_number_prints_each_case_as_it_ends(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(threads, "threads_of_this_process", lambda: 1)
    told, asked = [], []

    def cases(*given):
        asked.append(given)
        for case in ("first [a]", "second"):
            told.append(capsys.readouterr().out)
            yield _timings(case, "call", {"ours": [1e-6]}, {"ours": 1})

    monkeypatch.setattr(run, "cases", cases)
    command_output(monkeypatch, capsys, "bench", "circuits", "--storage", tmp_path)
    assert asked == [(2.0, False, False, (), ())]
    assert told[0] == ""
    assert told[1].startswith("first [a]")
    (path,) = tmp_path.glob("circuits-*.parquet")
    assert pq.read_table(path)["case"].to_pylist() == ["first [a]", "second"]
