"""Every engine of the bench, ours and each peer that is installed, gives the exact answers of small circuits."""

import warnings

import numpy as np
import pytest

from qsgd_ray.bench.circuits._case import TOLERANCES, Case, as_arrays, largest_difference
from qsgd_ray.bench.circuits._ours import OURS
from qsgd_ray.bench.circuits.engine import Engine, angle_columns, gates
from qsgd_ray.bench.circuits.peers import PEERS
from qsgd_ray.circuits.spec import CircuitSpec

ENGINES = {engine.name: engine for engine in (*OURS, *PEERS)}
CASES = [
    Case(CircuitSpec(4), 3, "states"),
    Case(CircuitSpec(3, 3, "ring"), 2, "z"),
    Case(CircuitSpec(4), 1, "gradient"),
    Case(CircuitSpec(3, 2, "ring"), 3, "gradient", "float32"),
]
LONG = Case(CircuitSpec(24), 2, "z")


def answers(engine, case):
    """What an engine answers, as arrays; the test is skipped where it is not installed or has no such answer."""
    if engine.missing():
        pytest.skip(f"{engine.name} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a package warns of is its own affair
        engine.bring()
        call = engine.call(case.circuits(), case.what)
        if call is None:
            pytest.skip("no such answer")
        first, again = as_arrays(call()), as_arrays(call())
    assert all(np.abs(one - other).max() < 1e-6 for one, other in zip(first, again, strict=True))
    return first


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_the_exact_answers(name, case):
    found = answers(ENGINES[name], case)
    assert largest_difference(found, case.exact(), name, TOLERANCES[case.precision]) < TOLERANCES[case.precision]


@pytest.mark.parametrize("name", ["auto", "chain", "jax mps", "Aer mps", "quimb mps"])
def test_an_engine_of_chains_gives_the_exact_answers_of_a_long_one(name):
    engine = ENGINES[name]
    assert 1 <= engine.share(LONG.spec, 2, "z") <= 2
    largest_difference(answers(engine, LONG), LONG.exact(), name, 1e-10)


@pytest.mark.parametrize("n_qubits", [1, 2, 13])
def test_the_hand_written_peers_hold_for_any_number_of_qubits(n_qubits):
    """13: <Z> by halving, 1: nothing to contract."""
    for name in ("jax fused", "jax kron", "jax halves"):
        case = Case(CircuitSpec(n_qubits), 2, "z")
        largest_difference(answers(ENGINES[name], case), case.exact(), name, 1e-10)


def test_names_fit_the_table_and_are_no_ones_twice():
    assert len(ENGINES) == len(OURS) + len(PEERS)
    assert all(0 < len(name) <= 20 for name in ENGINES)


def test_a_missing_package_is_a_word_and_an_installed_one_its_version():
    class Absent(Engine):
        needs = "no_such_package_of_this_name"

    class Present(Engine):
        needs = "torch"

    class Odd(Engine):
        needs, distribution = "torch", "no-such-distribution"

    assert (Absent().missing(), Absent().version()) == (True, "not installed")
    assert not Present().missing()
    assert Present().version().startswith("2.")
    assert Odd().version() == "version unknown"
    assert Engine().version() != "not installed"


def test_an_engine_answers_nothing_of_itself():
    circuits = Case(CircuitSpec(2), 1, "z").circuits()
    assert [Engine().call(circuits, what) for what in ("states", "z", "gradient")] == [None] * 3


def test_a_call_takes_as_many_circuits_as_fit():
    class Loop(Engine):
        most_circuits, most_amplitudes = 5, 2**10

    class Taped(Engine):
        tape = True

    assert [Loop().share(CircuitSpec(n), 8, "z") for n in (2, 8, 10, 11)] == [5, 4, 1, 0]
    assert Taped().share(CircuitSpec(16, 6, "ring"), 16, "z") == 16
    assert 1 <= Taped().share(CircuitSpec(16, 6, "ring"), 16, "gradient") < 16
    assert [Engine().share(CircuitSpec(n), 64, "z") for n in (100, 1000)] == [0, 0]


def test_gates_are_numbered_from_either_end_and_angles_in_their_order():
    spec = CircuitSpec(3, 1)
    assert [gate.wires for gate in gates(spec)][-2:] == [(0, 1), (1, 2)]
    assert [gate.wires for gate in gates(spec, first_wire_most_significant=True)][-2:] == [(2, 1), (1, 0)]
    assert angle_columns(spec) == ([0] * 6, [0, 1, 2] * 2, [0] * 3 + [1] * 3)
