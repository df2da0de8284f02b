"""Ends are where a walk over all sizes finds them, and what is beyond what was measured says so."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_limits import COSTS, SIGNAL, a_limits, made

from qsgd_ray.circuits.memory import needed_bytes
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.limits._curves import circuit_terms, fitted_curves
from qsgd_ray.limits._fits import ScalingError
from qsgd_ray.limits._frontier import (
    INTERPOLATED,
    MEASURED,
    circuit_costs,
    fading,
    largest,
    memory_ends,
    overhead_ends,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return made(tmp_path_factory.mktemp("limits")).read()


@pytest.fixture(scope="module")
def costs(tables):
    return circuit_costs(tables)


@given(end=st.integers(0, 3000), most=st.integers(1, 4000))
def test_the_largest_is_what_a_walk_finds(end, most):
    assert largest(lambda n: n <= end, most) == max((n for n in range(1, most + 1) if n <= end), default=0)


def test_what_a_way_takes_is_found_again(costs):
    assert costs.fits["statevector"].coefficients[:3] == pytest.approx(COSTS["statevector"], rel=1e-3)


@pytest.mark.parametrize("n_qubits", [5, 100, 3000])
def test_a_size_between_the_measured_ones_takes_what_the_law_says(costs, n_qubits):
    spec = CircuitSpec(n_qubits)
    by_hand = sum(c * t for c, t in zip(COSTS["chain"], circuit_terms("chain", spec, 1024).values, strict=True))
    assert costs.seconds("chain", spec, 1024).value == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.parametrize(("engine", "entangle"), [("torch", "ring"), ("torch", "chain"), ("chain", "chain")])
def test_the_overhead_ends_where_a_walk_finds_it(costs, engine, entangle):
    end = overhead_ends(costs, engine, entangle, 2, 26, 0.01)
    seconds = [
        costs.seconds(engine, CircuitSpec(n, 2, entangle), 26).value
        for n in range(1, 400 if engine == "torch" else 5000)
    ]
    assert end.n_qubits == sum(s <= 0.01 for s in seconds)
    assert end.low <= end.n_qubits <= end.high


def test_memory_ends_where_the_next_qubit_does_not_fit():
    n = memory_ends(2**34)
    assert needed_bytes(n) <= 2**34 < needed_bytes(n + 1)


def test_a_figure_says_how_it_is_known(costs):
    assert costs.standing("torch", CircuitSpec(22, 2, "ring"), 1) == MEASURED
    assert costs.standing("chain", CircuitSpec(100), 1000) == INTERPOLATED
    beyond = costs.standing("torch", CircuitSpec(26, 3, "ring"), 1)
    assert str(beyond) == "extrapolated beyond 22 qubits and 2 layers"
    assert "to all" in str(costs.standing("torch", CircuitSpec(4, 2, "all"), 1))


def test_a_way_that_was_not_measured_predicts_nothing(tmp_path):
    only = a_limits(curves=a_limits().curves[2:3])
    costs = circuit_costs(made(tmp_path, only).read())
    with pytest.raises(ScalingError, match="nothing measured of statevector"):
        costs.seconds("torch", CircuitSpec(4, 2, "ring"), 1)


def test_fading_is_told_by_its_half_life(tables):
    one = next(one for one in fitted_curves(tables) if one.curve.name == "fading-1")
    fade = fading(one)
    assert fade.halves_every == pytest.approx(math.log(2) / -SIGNAL[1], rel=1e-6)
    assert (
        math.exp(SIGNAL[0] + SIGNAL[1] * fade.small_from)
        <= 1e-3
        < math.exp(SIGNAL[0] + SIGNAL[1] * (fade.small_from - 1))
    )


def test_every_held_out_size_of_a_known_law_is_predicted(tables):
    for one in fitted_curves(tables):
        assert one.held is not None, one.why_not
        assert one.held.error == pytest.approx(0, abs=1e-3), one.curve.name
        assert one.largest is one.rows[-1]


def test_a_curve_that_is_not_measured_says_so(tmp_path):
    results = made(tmp_path)
    for file in results.storage.names("sizes", ".parquet"):
        results.storage.remove(f"sizes/{file}")
    assert {one.why_not for one in fitted_curves(results.read())} == {"no size is measured yet"}
