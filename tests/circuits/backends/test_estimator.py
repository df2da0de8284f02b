import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import generate_preset_pass_manager
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.providers.fake_provider import GenericBackendV2

from qsgd_ray.circuits.backends.estimator import EstimatorBackend, _weight_coefficients
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations, weight_of_first

SPEC = CircuitSpec(3)
EXACT = {"z": expectations, "probability": weight_of_first}


def angles(spec=SPEC, batch=4, seed=0):
    return torch.rand(spec.angles_shape(batch), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 6


@given(
    n=st.integers(1, 4),
    entangle=st.sampled_from(["chain", "ring", "all", "none"]),
    rotations=st.lists(st.sampled_from(["rx", "ry", "rz"]), min_size=1, max_size=3),
    readout=st.sampled_from(["z", "probability"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_an_exact_estimator_answers_exactly(n, entangle, rotations, readout, seed):
    spec = CircuitSpec(n, 2, entangle, tuple(rotations))
    answer = EstimatorBackend(StatevectorEstimator()).submit(spec, angles(spec, 3, seed), readout).result()
    assert answer.dtype == torch.float64
    torch.testing.assert_close(answer, EXACT[readout](spec, angles(spec, 3, seed)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("readout", ["z", "probability"])
def test_batched_is_unbatched_is_permuted(readout):
    backend = EstimatorBackend(StatevectorEstimator())
    whole = backend.submit(SPEC, angles(), readout).result()
    apart = torch.cat([backend.submit(SPEC, one[None], readout).result() for one in angles()])
    assert torch.equal(apart, whole)
    order = [2, 0, 3, 1]
    assert torch.equal(backend.submit(SPEC, angles()[order], readout).result(), whole[order])


@pytest.mark.parametrize("readout", ["z", "probability"])
def test_aers_estimator_is_an_estimator(readout):
    primitives = pytest.importorskip("qiskit_aer.primitives")
    answer = EstimatorBackend(primitives.EstimatorV2()).submit(SPEC, angles(), readout).result()
    torch.testing.assert_close(answer, EXACT[readout](SPEC, angles()), rtol=0, atol=1e-12)


LINE = GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], seed=1)


@pytest.mark.parametrize("how", ["backend", "pass_manager"])
@pytest.mark.parametrize("readout", ["z", "probability"])
def test_a_device_is_asked_in_its_gates_and_answers_in_our_qubit_order(how, readout):
    # Each of at most 3 answers of 2 circuits misses by 6 standard errors with odds below 2e-9; its noise took 0.05 off.
    asked_in = LINE if how == "backend" else generate_preset_pass_manager(1, LINE, seed_transpiler=3)
    spec, precision = CircuitSpec(3, 2, "all"), 0.02
    backend = EstimatorBackend(BackendEstimatorV2(backend=LINE), precision=precision, **{how: asked_in})
    answer = backend.submit(spec, angles(spec, 2), readout).result()
    assert ((answer - EXACT[readout](spec, angles(spec, 2))).abs() < 6 * precision + 0.1).all()


@pytest.mark.parametrize("how", ["backend", "pass_manager"])
@pytest.mark.parametrize("readout", ["z", "probability"])
def test_a_transpiled_circuit_answers_exactly_the_same(how, readout):
    asked_in = LINE if how == "backend" else generate_preset_pass_manager(1, LINE, seed_transpiler=3)
    spec = CircuitSpec(3, 2, "all")
    answer = EstimatorBackend(StatevectorEstimator(), **{how: asked_in}).submit(spec, angles(spec), readout).result()
    torch.testing.assert_close(answer, EXACT[readout](spec, angles(spec)), rtol=0, atol=1e-12)


@given(st.integers(1, 6))
def test_the_coefficients_of_a_weight_are_those_of_its_projectors(n):
    signs = np.array([[(-1) ** (y & mask).bit_count() for mask in range(2**n)] for y in range(2**n)])
    np.testing.assert_array_equal(signs @ _weight_coefficients(n), np.arange(2**n) < n)


class Waits:
    """An estimator whose jobs are done when they are collected; it counts what it was asked."""

    def __init__(self, answer):
        self.answer, self.submitted, self.collected = answer, [], 0

    def run(self, pubs, *, precision=None):
        self.submitted.append((pubs, precision))
        return self

    def result(self):
        self.collected += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return StatevectorEstimator().run(self.submitted[-1][0]).result() if self.answer is None else [self.answer]


def test_a_batch_is_one_pub_and_is_waited_for_at_result_once():
    estimator = Waits(None)
    pending = EstimatorBackend(estimator, precision=0.25).submit(SPEC, angles())
    assert estimator.collected == 0
    assert pending.result() is pending.result()
    assert estimator.collected == 1
    ((pubs, precision),) = estimator.submitted
    assert len(pubs) == 1
    assert precision == 0.25


def test_an_empty_batch_is_not_sent():
    estimator = Waits(None)
    assert EstimatorBackend(estimator).submit(SPEC, angles()[:0]).result().shape == (0, 3)
    assert not estimator.submitted


def test_a_job_that_fails_is_told_in_one_line():
    pending = EstimatorBackend(Waits(OSError("no route\nto host"))).submit(SPEC, angles())
    with pytest.raises(CircuitError, match=r"^backend estimator: OSError: no route$"):
        pending.result()


def test_an_answer_of_another_shape_is_refused():
    class Answer:
        class data:
            evs = np.zeros(3)

    pending = EstimatorBackend(Waits(Answer)).submit(SPEC, angles())
    with pytest.raises(CircuitError, match=r"^backend estimator: got values of shape \(3,\); allowed: \(3, 4\)$"):
        pending.result()


def test_what_run_refuses_is_told_in_one_line():
    # Three qubits do not fit on two.
    backend = EstimatorBackend(StatevectorEstimator(), backend=GenericBackendV2(2, seed=0))
    with pytest.raises(CircuitError, match=r"^backend estimator: \w+: .+$") as error:
        backend.submit(SPEC, angles())
    assert "\n" not in str(error.value)


def test_a_weight_of_too_many_qubits_is_refused():
    spec = CircuitSpec(13, 1)
    with pytest.raises(CircuitError, match=r"^backend estimator: got readout 'probability' on 13 qubits; allowed: at"):
        EstimatorBackend(Waits(None)).submit(spec, angles(spec), "probability")


def test_angles_of_another_shape_are_refused():
    with pytest.raises(CircuitError, match=r"^angles: got shape"):
        EstimatorBackend(Waits(None)).submit(SPEC, angles(CircuitSpec(4)))


def test_arguments_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"^backend estimator: got None; allowed: a Qiskit BaseEstimatorV2$"):
        EstimatorBackend(None)
    for precision in (-0.1, math.nan):
        with pytest.raises(ValueError, match=r"^backend estimator: got precision .*; allowed: a number >= 0, or None$"):
            EstimatorBackend(Waits(None), precision=precision)
    with pytest.raises(ValueError, match=r"^backend estimator: got a backend and a pass manager; allowed: one of them"):
        EstimatorBackend(Waits(None), backend=LINE, pass_manager=object())
