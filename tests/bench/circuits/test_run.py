"""The bench of circuits: rows of every case, a wrong engine is an error, a missing one a word, a quicker one a row."""

import numpy as np
import pytest
from rich.console import Console

from qsgd_ray.bench.circuits import _grid, run
from qsgd_ray.bench.circuits._case import Case, largest_difference
from qsgd_ray.bench.circuits.engine import Engine
from qsgd_ray.bench.rows import _timings, timing_table
from qsgd_ray.circuits.spec import CircuitSpec

TINY_S = 1e-4
CASE = Case(CircuitSpec(3), 4, "gradient")


class Exact(Engine):
    """A peer that answers exactly, but for `error`."""

    name = "exact"
    error, least, precision = 0.0, 0, "float64"

    def z_and_gradient(self, circuits):
        z, gradient = (array[: len(circuits.angles_bdnr)] for array in CASE.exact())
        return lambda: (z.astype(self.precision), gradient + self.error)


class Partial(Exact):
    name = "partial"
    most_circuits = 2


class Absent(Engine):
    name, needs = "absent", "no_such_package_of_this_name"


def made(**attributes):
    return type("Made", (Exact,), attributes)()


def told(rows):
    return {row.engine: row for row in rows}


def test_a_case_has_ours_first_then_each_peer_that_answers_it():
    rows = run._measured(CASE, [*run.OURS, Exact(), Partial(), Engine()], TINY_S)
    assert [row.engine for row in rows] == ["auto", "statevector", "chain", "exact", "partial"]
    assert all(row.rounds >= 1 and 0 < row.fastest_us <= row.median_us <= row.slowest_us for row in rows)
    assert all(row.first_ms > 0 and row.ratio > 0 for row in rows)
    assert min(row.ratio for row in rows[3:]) == 1.0
    assert told(rows)["partial"].note == "2 a call"
    assert {row.case for row in rows} == {f"{CASE}, {run._threads()}"}


def test_ratios_are_to_the_best_peer_also_where_it_wins():
    rows = _timings("c", "circuit", {"auto": [4.0], "a": [2.0], "b": [8.0]}, {"auto": 1, "a": 1, "b": 1})
    assert [row.ratio for row in run._against_the_best_peer(rows, {"a": 5.0})] == [2.0, 1.0, 4.0]
    assert [row.first_ms for row in run._against_the_best_peer(rows, {"a": 5.0})] == [None, 5.0, None]
    assert [row.ratio for row in run._against_the_best_peer(rows[:1], {})] == [None]


@pytest.mark.parametrize("error", [1e-6, float("nan")])
def test_a_wrong_peer_is_an_error_that_names_it_and_no_clock_starts(monkeypatch, error):
    monkeypatch.setattr(run, "interleaved", lambda *_: pytest.fail("a clock has started"))
    with pytest.raises(AssertionError, match=r"exact differs from qsgd-ray by (1\.0e-06|nan)"):
        run._measured(CASE, [*run.OURS, made(error=error)], TINY_S)


def test_a_peer_that_answers_in_another_shape_is_an_error():
    z = np.zeros((2, 3))
    with pytest.raises(AssertionError, match=r"x answers in shape \(2, 1\), qsgd-ray in \(2, 3\)"):
        largest_difference((z[:, :1],), (z,), "x", 1.0)


def test_float32_has_a_tolerance_of_its_own_and_who_computes_in_float64_is_marked():
    single = Case(CircuitSpec(3), 4, "gradient", "float32")
    rows = run._measured(single, [made(name="a", error=1e-5), made(name="b", error=1e-5, precision="float32")], TINY_S)
    assert [row.note for row in rows] == ["float64", None]
    with pytest.raises(AssertionError, match="a differs"):
        run._measured(single, [made(name="a", error=1e-3)], TINY_S)


def test_a_run_begins_with_what_is_installed_and_a_missing_peer_has_no_row_after(monkeypatch):
    monkeypatch.setattr(run, "_ENGINES", (*run.OURS, Exact(), Absent()))
    monkeypatch.setattr(_grid, "usual", lambda: iter([CASE]))
    installed, rows = run.cases(TINY_S)
    assert {row.engine: row.note for row in installed}["absent"] == "not installed"
    assert all(row.rounds == 0 for row in installed)
    assert "absent" not in told(rows)
    assert [row.engine for row in next(run.cases(TINY_S, engines=["exact", "absent"]))] == ["exact", "absent"]


def test_cases_are_chosen_by_words_and_those_that_no_one_answers_are_left_out(monkeypatch):
    monkeypatch.setattr(run, "_ENGINES", (Exact(),))
    monkeypatch.setattr(_grid, "quick", lambda: iter([CASE, Case(CircuitSpec(3), 4, "z")]))
    names = [rows[0].case for rows in run.cases(TINY_S, quick=True)]
    assert len(names) == 2
    assert names[1].startswith("<Z> and gradient, 3 qubits, batch 4, depth 2, chain, float64")
    assert len(list(run.cases(TINY_S, quick=True, words=["ring"]))) == 1


def test_all_cases_are_those_of_the_goals_and_the_others_are_among_them():
    every, usual, quick = (list(cases()) for cases in (_grid.every, _grid.usual, _grid.quick))
    assert len(every) == len(set(every)) == 11 * 3 * 2 * 2 * 2 + 3 * 2 * 2 * 2 + 2
    assert set(usual) <= set(every)
    assert set(quick) <= set(every)
    assert len(usual) < 40
    assert {(case.spec.n_qubits, case.batch) for case in every if case.spec.n_qubits == 16} == {(16, 1), (16, 16)}
    assert {case.what for case in every if case.spec.n_qubits > 16} == {"z", "gradient"}


def test_a_table_fits_80_columns_and_shows_first_calls():
    case = f"{Case(CircuitSpec(16, 6, 'ring'), 4096, 'gradient', 'float32')}, 2 threads"
    seconds = {"PennyLane lightning": [12.0], "auto": [1e-6]}
    notes = {"PennyLane lightning": "64 a call, float64"}
    rows = run._against_the_best_peer(
        _timings(case, "circuit", seconds, dict.fromkeys(seconds, 1), notes), {"auto": 0.5, "PennyLane lightning": 9e5}
    )
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(timing_table(rows))
        console.print(timing_table(_timings("engines", "circuit", {}, {}, {"qujax": "not installed"})))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    (lightning,) = (line for line in lines if line.startswith("PennyLane lightning"))
    assert lightning.split()[2:6] == ["900,000", "12,000,000", "1.00", "1"]
    assert any(line.split() == ["qujax", "not", "installed"] for line in lines)


def test_the_circuits_of_a_case_are_the_same_every_time_and_a_part_is_the_first_of_them():
    whole, part = CASE.circuits(), CASE.circuits(2)
    assert np.array_equal(whole.angles_bdnr[:2], part.angles_bdnr)
    assert np.array_equal(whole.cotangent_bn[:2], part.cotangent_bn)
    assert (whole.double, Case(CircuitSpec(3), 4, "z", "float32").circuits().double) == (True, False)
