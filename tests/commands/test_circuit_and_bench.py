"""The commands `circuit` and `bench`: a table, a picture and rows out; exit code 2 and one line for bad input."""

import importlib

import pyarrow.parquet as pq
import pytest
from support.command_line import command_output, said_by

from qsgd_ray.bench.rows import _timings


def circuit(monkeypatch, capsys, *words: object, columns: int = 80) -> str:
    return command_output(monkeypatch, capsys, "circuit", *words, columns=columns)


def test_a_circuit_is_drawn_with_its_gates_and_fits_the_terminal(monkeypatch, capsys):
    told = circuit(monkeypatch, capsys, "--qubits", 3, "--depth", 1, "--entangle", "ring", "--rotations", "rx,rz")
    assert all(gate in told for gate in ("q_0: ┤ H ├┤ Rx(a[0,0]) ├┤ Rz(b[0,0]) ├", "q_2: ┤ H ├", "■", "┤ X ├"))
    for columns in (60, 80, 120):
        drawn = circuit(monkeypatch, capsys, "--depth", 6, columns=columns).split("\n<Z_i>")[0]
        assert max(map(len, drawn.splitlines())) <= columns


@pytest.mark.parametrize(("qubits", "depth"), [(1, 1), (3, 2), (4, 5)])
def test_a_circuits_response_takes_a_circuit_for_each_of_its_waves(monkeypatch, capsys, qubits, depth):
    told = circuit(monkeypatch, capsys, "--qubits", qubits, "--depth", depth)
    amplitude = "Re(psi_0)" if qubits == 1 else f"Re(psi_0 + ... + psi_{qubits - 1})"
    probability = "|psi_0|^2" if qubits == 1 else f"|psi_0|^2 + ... + |psi_{qubits - 1}|^2"
    assert f"{amplitude} of x, exact from {qubits * depth + 1} circuits" in told
    assert f"{probability} of x, exact from {2 * qubits * depth + 1} circuits" in told
    assert told.count("└───") >= 2, "an axis below each response"
    assert "auto picks " in told


def test_a_circuit_of_the_same_seed_is_the_same_and_seed_0_has_no_angles(monkeypatch, capsys):
    def labels(seed):
        words = ("--qubits", 2, "--depth", 1, "--entangle", "none", "--rotations", "rz", "--seed", seed)
        told = circuit(monkeypatch, capsys, *words)
        return [line.split("│")[0].strip() for line in told.splitlines() if " │" in line]

    assert labels(1) == labels(1) != labels(2)
    # psi_0 + psi_1 = (e^{-ix} + 1) / 2, and other angles keep the two from being in phase.
    assert (labels(0)[0], labels(0)[11]) == ("+1.000", "+0.000")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--entangle", "star"], "CircuitSpec.entangle: got 'star'; allowed: chain, ring, all, none"),
        (["--rotations", "ry,rq"], "CircuitSpec.rotations: got ('ry', 'rq'); allowed: one or more of rx, ry, rz"),
        (["--rotations", ""], "CircuitSpec.rotations: got ('',); allowed: one or more of rx, ry, rz"),
        (["--picture", "/dev/null/picture.html"], "--picture: got /dev/null/picture.html; allowed: a file that can b"),
    ],
)
def test_a_circuit_that_is_none_is_one_line_and_exit_code_2(monkeypatch, capsys, words, said):
    code, told = said_by(monkeypatch, capsys, "circuit", *words)
    assert code == 2
    assert said in told
    assert told.count("\n") == 1


def test_the_picture_of_a_circuit_is_a_page_that_works_offline(monkeypatch, capsys, tmp_path):
    page = tmp_path / "circuit.html"
    told = circuit(monkeypatch, capsys, "--qubits", 2, "--picture", page)
    assert f"Picture: {page}" in told.splitlines()
    html = page.read_text()
    assert len(html) > 1_000_000, "plotly itself is in it"
    assert "<script src=" not in html
    assert "CircuitSpec(n_qubits=2, depth=2" in html


def test_bench_attention_prints_a_table_a_case_and_writes_its_rows(monkeypatch, capsys, tmp_path):
    from qsgd_ray.bench import attention

    monkeypatch.setattr(attention, "_BATCH", 2)
    monkeypatch.setattr(attention, "TOKENS_SCORED_QUICKLY", 2)
    monkeypatch.setattr(attention, "_TOKENS_TRAINED", (3,))
    words = ("attention", "--quick", "--budget", 1e-4, "--storage", tmp_path / "new")
    told = command_output(monkeypatch, capsys, "bench", *words, columns=100)
    assert max(map(len, told.splitlines()[:-1])) <= 100
    (path,) = (tmp_path / "new").iterdir()
    rows = pq.read_table(path).to_pylist()
    assert told.splitlines()[-1] == f"{len(rows)} rows: {path}"
    assert len(rows) == 8
    assert {row["bench"] for row in rows} == {"attention"}
    for case in {row["case"] for row in rows}:
        assert told.count(case) == 1
    assert [told.count(row["engine"]) >= 1 for row in rows] == [True] * 8


@pytest.mark.parametrize("name", ["attention", "optimizer", "pool"])
def test_a_bench_prints_each_case_as_it_ends(monkeypatch, capsys, tmp_path, name):
    module = importlib.import_module(f"qsgd_ray.bench.{name}")
    told, asked = [], []

    def cases(budget_s, quick):
        asked.append((budget_s, quick))
        for case in ("first [a]", "second"):
            told.append(capsys.readouterr().out)
            yield _timings(case, "call", {"ours": [1e-6]}, {"ours": 1})

    monkeypatch.setattr(module, "cases", cases)
    monkeypatch.chdir(tmp_path)
    command_output(monkeypatch, capsys, "bench", name)
    assert asked == [(2.0, False)]
    assert told[0] == ""
    assert told[1].startswith("first [a]")
    (path,) = (tmp_path / "results" / "bench").glob(f"{name}-*.parquet")
    assert pq.read_table(path)["case"].to_pylist() == ["first [a]", "second"]


def test_a_bench_whose_rows_have_no_place_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    from qsgd_ray.bench import attention, rows

    measured = []

    def cases(*_):
        measured.append("a case")
        yield _timings("a case", "call", {"ours": [1e-6]}, {"ours": 1})

    monkeypatch.setattr(attention, "cases", cases)
    code, told = said_by(monkeypatch, capsys, "bench", "attention", "--storage", "/dev/null/bench")
    assert (code, measured) == (2, []), "no minutes spent for nothing"
    assert told.startswith("qsgd-ray: --storage: got /dev/null/bench; allowed: a folder that can be written (")
    assert told.count("\n") == 1

    def full(table, path):
        raise OSError("disk full")

    monkeypatch.setattr(rows.pq, "write_table", full)
    code, told = said_by(monkeypatch, capsys, "bench", "attention", "--storage", tmp_path)
    assert code == 2
    assert told == f"qsgd-ray: --storage: got {tmp_path}; allowed: a folder that can be written (disk full)\n"
