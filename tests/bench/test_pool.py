"""The bench of the pool: every case with its engines and notes; a wrong answer is an error."""

import re

import pytest
import torch

from qsgd_ray.bench import pool as bench
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.pool.backend import PoolBackend

SHORT_S = 0.02


@pytest.fixture
def small(cluster, monkeypatch):
    """Actors that fit into the tests' cluster."""
    monkeypatch.setattr(bench, "_CPUS", 0.25)
    monkeypatch.setattr(bench, "_STEPS", 2)
    monkeypatch.setattr(bench, "_STEPS_BUDGETS", 1)


def by_engine(rows):
    assert len({row.case for row in rows}) == 1
    return {row.engine: row for row in rows}


def test_two_actors_stand_beside_one_process(small):
    pytest.importorskip("qiskit_aer")
    rows = by_engine(bench._over_actors(6, SHORT_S))
    assert list(rows) == ["one process", "two actors"]
    assert re.match(r"\d+\.\d\d times as quick, error", rows["two actors"].note)


def test_a_batch_stands_beside_a_task_a_circuit(small):
    rows = by_engine(bench._against_tasks(64, 2, SHORT_S))
    # By their medians, one stall of the machine would count.
    assert rows["a Ray task a circuit"].fastest_us > rows["pool, one actor"].fastest_us


def test_a_message_stands_beside_ray_s_own_ways_and_says_what_it_costs_above_the_simulation(small):
    rows = by_engine(bench._one_message(SHORT_S))
    assert list(rows) == ["simulated here", "direct line", "Ray's call", "Ray's compiled graph, no simulation"]
    told = {
        name: re.fullmatch(r"above the simulation (\S+) ms at p50, (\S+) at p99", row.note or "")
        for name, row in rows.items()
    }
    assert {name for name, found in told.items() if found} == {"direct line", "Ray's call"}
    assert all(0 < float(found[1]) <= float(found[2]) for found in told.values() if found)


def test_by_ray_s_calls_no_line_is_taken(small, monkeypatch):
    monkeypatch.setattr("qsgd_ray.pool.router._ADDRESS_WAIT_S", 30.0)  # a busy machine may take its time
    with bench._pool(1) as pool:
        by_calls = PoolBackend(bench._RayCalls.of(pool.router))
        for asker, lines in ((pool, 1), (by_calls, 0)):
            asker.submit(bench._PAPER, bench._angles(bench._PAPER, 2)).result()
            assert len(asker.router._connections) == lines


def test_a_training_stands_beside_adamw_and_says_how_long_circuits_took(small):
    pytest.importorskip("qiskit_aer")
    rows = by_engine(bench._training_step(8, SHORT_S))
    assert next(iter(rows)) == "AdamW, fused"
    noted = {name for name, row in rows.items() if row.note and "30 circuits, simulated in " in row.note}
    assert noted == {
        "Aer in the pool",
        "Aer in the pool, collected at once",
        "torch in the pool",
        "torch in this process",
    }
    others = [row.note for name, row in rows.items() if name != "AdamW, fused"]
    assert all(re.match(r"of \d+ pairs of runs \S+ times, half of them \S+ to \d", note) for note in others)


def test_a_killed_actor_costs_time_and_no_answer(small):
    rows = by_engine(bench._killed_actor(1))
    assert list(rows) == ["undisturbed", "one of two actors killed"]


def test_a_wrong_answer_is_an_error():
    with pytest.raises(AssertionError, match=r"two actors differs from the exact answers by 1\.0e\+00"):
        bench._require_agreement({"two actors": lambda: torch.ones(1)}, torch.zeros(1))


def test_what_is_asked_at_once_has_its_answer_when_it_is_asked():
    class Refusing:
        def submit(self, *_):
            raise CircuitError("no")

    with pytest.raises(CircuitError):
        bench._WithoutPrefetch(Refusing()).submit(bench._PAPER, bench._angles(bench._PAPER, 1))
