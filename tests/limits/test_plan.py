"""A plan adds up, says how each figure is known, and refuses in one line what cannot be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_limits import COSTS, POOL, a_limits, made

from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import StudyError
from qsgd_ray.limits._curves import circuit_terms
from qsgd_ray.limits.plan import PlannedRun, _fewest, is_extrapolated, lines, parameters_of, plan, training_seconds


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return made(tmp_path_factory.mktemp("limits")).read()


def run(**fields):
    common = {"qubits": 24, "parameters": 1_200_000_000, "scope": "all", "training_s": 10.0, "training_source": "given"}
    return PlannedRun(**common | fields)


@pytest.mark.parametrize(("scope", "circuits"), [("model", 1), ("tensor", 146), ("all", 50_000_000)])
def test_the_scope_says_how_many_circuits(scope, circuits):
    assert run(scope=scope).n_circuits == circuits


def test_circuits_and_asking_are_what_the_laws_say(tables):
    found = plan(run(nodes=100, actors_per_node=4), tables)
    assert (found.engine, found.actors) == ("chain", 400)
    batch = 50_000_000 // 400
    terms = circuit_terms("chain", CircuitSpec(24), 1024).values
    by_hand = batch / 1024 * sum(c * t for c, t in zip(COSTS["chain"], terms, strict=True))
    assert found.circuits_s.value == pytest.approx(by_hand, rel=1e-3)
    asking = POOL[0] + POOL[1] * 400 + POOL[2] * 50_000_000 * 24 / 8  # three times the numbers of 8 qubits
    assert found.requests_s.value == pytest.approx(asking, rel=1e-3)


def test_the_step_adds_up(tables):
    found = plan(run(nodes=1, scope="tensor", qubits=300, training_s=1e-3), tables)
    assert found.step_s == pytest.approx(1e-3 + found.exposed_s)
    assert found.overhead == pytest.approx(found.exposed_s / 1e-3)
    assert 0 <= found.hidden <= 1
    assert found.node_hours == pytest.approx(found.step_s * 1000 / 3600)


def test_what_is_quicker_than_the_training_step_is_hidden_but_for_the_asking(tables):
    found = plan(run(scope="tensor", training_s=100.0), tables)
    assert found.exposed_s == found.requests_s.value
    assert found.nodes_needed == 1


def test_the_nodes_needed_are_enough_and_one_less_is_not(tables):
    common = {"qubits": 24, "parameters": 2_000_000, "training_s": 1.5, "depth": 4}
    needed = plan(run(**common), tables).nodes_needed
    assert needed > 1
    assert plan(run(nodes=needed, **common), tables).overhead <= 0.35
    assert plan(run(nodes=needed - 1, **common), tables).overhead > 0.35


def test_no_number_of_nodes_helps_where_the_asking_takes_too_long(tables):
    found = plan(run(training_s=1.0), tables)
    assert found.nodes_needed is None
    assert ("nodes for at most 35 % more", "no number of nodes: asking alone takes too long") in [
        line[:2] for line in lines(found)
    ]


def test_no_price_is_made_up(tables):
    assert plan(run(), tables).cost is None
    assert "give --price-per-node-hour" in [much for _, much, _ in lines(plan(run(), tables))]
    found = plan(run(price_per_node_hour=2.0, nodes=3), tables)
    assert found.cost == pytest.approx(2 * found.node_hours)


def test_beyond_what_was_measured_it_says_so(tables):
    far = plan(run(nodes=100), tables)
    assert is_extrapolated(far)
    assert "beyond 4 actors and 16,384 circuits" in str(far.requests_standing)
    near = plan(run(scope="tensor", nodes=2, qubits=64), tables)
    assert not is_extrapolated(near)


def test_memory_is_that_of_the_engine(tables):
    state = plan(run(scope="model", qubits=24, entangle="ring", depth=7, memory_per_node=2**36), tables)
    assert state.engine == "torch"
    assert state.memory_bytes >= 40 * 2**24


def test_circuits_that_no_node_holds_are_refused(tables):
    with pytest.raises(StudyError, match="plan: n_qubits: got 40 at depth 9"):
        plan(run(qubits=40, depth=9, entangle="ring"), tables)


def test_a_circuit_that_is_none_is_refused(tables):
    with pytest.raises(StudyError, match=r"plan: CircuitSpec.depth: got 0"):
        plan(run(depth=0), tables)


def test_a_way_without_rows_is_refused(tmp_path):
    few = made(tmp_path, a_limits(curves=a_limits().curves[6:7])).read()
    with pytest.raises(StudyError, match="nothing measured of"):
        plan(run(), few)


def test_results_without_a_pool_are_refused(tmp_path):
    few = made(tmp_path, a_limits(curves=a_limits().curves[:3])).read()
    with pytest.raises(StudyError, match="without a measured pool"):
        plan(run(), few)


@given(end=st.integers(1, 5000))
def test_the_fewest_is_what_a_walk_finds(end):
    assert _fewest(lambda n: n >= end) == end


def test_the_fewest_of_what_never_is_enough_is_none():
    assert _fewest(lambda n: False) is None


@pytest.mark.parametrize(("told", "number"), [("1.2B", 1_200_000_000), ("135m", 135_000_000), ("50k", 50_000)])
def test_parameters_by_suffix(told, number):
    assert parameters_of(told) == number


@pytest.mark.parametrize("told", ["", "B", "-1B", "0", "nan", "1e99", "1.2T"])
def test_parameters_that_are_none_are_refused(told):
    with pytest.raises(StudyError, match="--model: got"):
        parameters_of(told)


def test_the_training_step_by_flops():
    assert training_seconds(10**9, 2048, 1e14, 0.5) == pytest.approx(6e9 * 2048 / 5e13)
    assert math.isfinite(training_seconds(1, 1, 1.0, 1.0))
