"""The bench of circuits: rows of every case, a wrong engine is an error, a peer that is not there a note."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from qsgd_ray.bench import circuits
from qsgd_ray.bench.circuits import _chains_against_aer, _final_states, _linear_time, _wide
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations, statevector, weight_of_first

TINY_S = 1e-4
ENGINES = ["PennyLane", "Aer", "Qiskit Statevector", "qulacs"]
RINGS = CircuitSpec(4, 2, "ring")

# Whatever is not installed here would be a row without a time.
peers_needed = pytest.mark.skipif(
    any(find_spec(package) is None for package in circuits._NEEDS.values()), reason="needs the extra `bench`"
)


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(circuits, "find_spec", lambda _: None)


def told(rows):
    return {row.engine: row for row in rows}


@peers_needed
def test_a_run_has_rows_of_every_case_and_no_null_where_all_is_installed(monkeypatch):
    monkeypatch.setattr(circuits, "_STATES", ((2, 3), (3, 2)))
    monkeypatch.setattr(circuits, "_WIDE", ((CircuitSpec(5, 2, "ring"), "z"), (CircuitSpec(4), "probability")))
    monkeypatch.setattr(circuits, "_CHAINS", (8, 16, 32))
    rows = [row for rows in circuits.cases(TINY_S, quick=True) for row in rows]
    assert list(dict.fromkeys(row.case for row in rows)) == [
        "final state, 2 qubits, depth 2, batch 3",
        "final state, 3 qubits, depth 2, batch 2",
        "z, 5 qubits, depth 2, ring, batch 1",
        "<Z> of a chain, 40 qubits, depth 2, batch 128",
        "<Z> of long chains, depth 2, batch 64",
    ]
    assert all(row.rounds >= 1 and 0 < row.fastest_us <= row.median_us <= row.slowest_us for row in rows)
    assert [row.engine for row in rows if row.ratio == 1.0][:2] == ["qsgd-ray", "qsgd-ray"]


def test_a_whole_run_has_every_case_and_a_quick_one_fewer(monkeypatch):
    asked = []
    for name in ("_final_states", "_wide", "_chains_against_aer", "_linear_time"):
        monkeypatch.setattr(circuits, name, lambda *given, name=name: asked.append((name, given)) or [])
    assert [row for rows in circuits.cases(TINY_S) for row in rows] == []
    whole, n = [name for name, _ in asked], len(asked)
    assert whole == [*["_final_states"] * 4, *["_wide"] * len(circuits._WIDE), "_chains_against_aer", "_linear_time"]
    [row for rows in circuits.cases(TINY_S, quick=True) for row in rows]
    assert [name for name, _ in asked[n:]] == ["_final_states", "_final_states", "_wide", *whole[-2:]]
    assert all(given[-1] == TINY_S for _, given in asked)


@peers_needed
@pytest.mark.parametrize("readout", ["z", "probability"])
def test_a_wide_circuit_has_every_engine_and_says_what_auto_picked(readout):
    rows = told(_wide(RINGS, readout, TINY_S))
    assert list(rows) == ["auto", "torch statevector", "Aer", "PennyLane"]
    assert rows["auto"].note.startswith("picked ")


@peers_needed
def test_a_peer_that_would_take_minutes_is_left_out(monkeypatch):
    monkeypatch.setattr(circuits, "_MOST_QUBITS", {"PennyLane": 3})
    assert "PennyLane" not in told(_wide(RINGS, "z", TINY_S))


@peers_needed
def test_a_slow_peer_simulates_fewer_and_is_timed_by_the_circuit(monkeypatch):
    asked = {}
    make = circuits.peers.qulacs_loop
    monkeypatch.setattr(
        circuits.peers, "qulacs_loop", lambda spec, angles: asked.update(n=len(angles)) or make(spec, angles)
    )
    monkeypatch.setattr(circuits, "_MOST_OF_A_LOOP", {"qulacs": 2 * 2**4})
    rows = told(_final_states(RINGS, 5, TINY_S))
    assert asked == {"n": 2}
    assert rows["qulacs"].median_us > 0


def test_without_peers_there_are_rows_with_a_note_and_nulls(nothing_installed):
    rows = _final_states(RINGS, 2, TINY_S)
    assert [row.engine for row in rows] == ["qsgd-ray", *ENGINES]
    assert rows[0].median_us > 0
    for row in rows[1:]:
        assert (row.rounds, row.median_us, row.fastest_us, row.slowest_us, row.ratio) == (0, None, None, None, None)
    notes = {row.engine: row.note for row in rows}
    assert notes["Aer"] == "not installed: qiskit-aer, in the extra `bench`"
    assert notes["PennyLane"] == "not installed: pennylane, in the extra `bench`"
    for found in (told(_wide(RINGS, "z", TINY_S)), told(_chains_against_aer(CircuitSpec(6), 2, TINY_S))):
        missing = [row for row in found.values() if row.median_us is None]
        assert missing
        assert all(row.note.startswith("not installed: ") for row in missing)


def off_by(amount):
    """A maker of a peer whose states are wrong by so much."""
    return lambda spec, angles: lambda: statevector(spec, angles).numpy() + amount


@pytest.mark.parametrize("amount", [1e-6, float("nan")])
def test_a_wrong_state_is_an_error_that_names_the_engine(monkeypatch, amount):
    monkeypatch.setattr(circuits, "find_spec", lambda name: name == "qulacs" or None)
    monkeypatch.setattr(circuits.peers, "qulacs_loop", off_by(amount))
    with pytest.raises(AssertionError, match=r"qulacs differs from qsgd-ray by (1\.0e-06|nan)"):
        _final_states(RINGS, 2, TINY_S)


def test_a_state_that_differs_by_rounding_is_a_row(monkeypatch):
    monkeypatch.setattr(circuits, "find_spec", lambda name: name == "qulacs" or None)
    monkeypatch.setattr(circuits.peers, "qulacs_loop", off_by(1e-14))
    assert told(_final_states(RINGS, 2, TINY_S))["qulacs"].median_us > 0


def test_a_wrong_expectation_is_an_error_too(monkeypatch):
    monkeypatch.setattr(circuits, "find_spec", lambda name: name == "pennylane" or None)
    monkeypatch.setattr(circuits.peers, "pennylane_batched", off_by(1e-6))
    with pytest.raises(AssertionError, match="PennyLane differs"):
        _wide(RINGS, "z", TINY_S)


@pytest.mark.parametrize("amount", [0.0, 1e-6])
def test_chains_are_compared_with_aer_before_they_are_timed(monkeypatch, amount):
    def peer(spec, angles):
        return lambda: expectations(spec, angles).numpy() + amount

    monkeypatch.setattr(circuits, "find_spec", lambda _: True)
    monkeypatch.setattr(circuits.peers, "aer_matrix_product_state", peer)
    if amount:
        with pytest.raises(AssertionError, match="Aer matrix-product state differs from qsgd-ray by 1"):
            _chains_against_aer(CircuitSpec(6), 20, TINY_S)
    else:
        rows = told(_chains_against_aer(CircuitSpec(6), 20, TINY_S))
        assert list(rows) == ["chain", "Aer matrix-product state"]
        assert rows["Aer matrix-product state"].note.startswith("differs by ")


def test_long_chains_have_a_row_each_and_the_exponent_in_the_last(monkeypatch):
    def quadratic(calls, budget_s):
        return {name: [1e-6 * int(name.split()[1]) ** 2] for name in calls}

    monkeypatch.setattr(circuits, "interleaved", quadratic)
    rows = _linear_time((4, 8, 16), TINY_S, batch=2)
    assert [row.engine for row in rows] == ["chain, 4 qubits", "chain, 8 qubits", "chain, 16 qubits"]
    assert [row.note for row in rows] == [None, None, "time ~ qubits^2.00"]


@pytest.mark.parametrize("readout", ["z", "probability"])
def test_states_are_read_as_the_backends_do(readout):
    angles = circuits._some_angles(RINGS, 3)
    read = circuits._read(statevector(RINGS, angles).numpy(), RINGS, readout)
    exact = {"z": expectations, "probability": weight_of_first}[readout](RINGS, angles)
    assert np.abs(read - exact.numpy()).max() < 1e-13


def test_the_angles_of_a_bench_are_the_same_every_time():
    assert torch.equal(circuits._some_angles(RINGS, 3), circuits._some_angles(RINGS, 3))
