import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_backends import CountingBackend

from qsgd_ray.circuits.backends.gradients import _shifted_angles, answer
from qsgd_ray.circuits.backends.in_process import ChainBackend
from qsgd_ray.circuits.backends.shots import ShotsBackend
from qsgd_ray.circuits.errors import CircuitError
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations, weight_of_first

SPEC = CircuitSpec(3)
EXACT = {"z": expectations, "probability": weight_of_first}


def angles(spec=SPEC, batch=2, seed=0):
    return torch.rand(spec.angles_shape(batch), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 6


def weights(spec, readout, batch=2):
    """A gradient that arrives from above."""
    return torch.linspace(-1, 2, batch * spec.answer_width(readout), dtype=torch.float64).view(batch, -1)


def gradient(ask, spec, readout, theta):
    theta = theta.clone().requires_grad_()
    (ask(theta) * weights(spec, readout, len(theta))).sum().backward()
    return theta.grad


@given(
    n=st.integers(1, 4),
    entangle=st.sampled_from(["chain", "ring", "all", "none"]),
    rotations=st.lists(st.sampled_from(["rx", "ry", "rz"]), min_size=1, max_size=3),
    readout=st.sampled_from(["z", "probability"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_the_parameter_shift_of_an_exact_backend_is_autograd(n, entangle, rotations, readout, seed):
    spec = CircuitSpec(n, 2, entangle, tuple(rotations))
    theta = angles(spec, 2, seed)
    shifted = gradient(lambda a: answer(CountingBackend(), spec, a, readout), spec, readout, theta)
    followed = gradient(lambda a: EXACT[readout](spec, a), spec, readout, theta)
    torch.testing.assert_close(shifted, followed, rtol=0, atol=1e-10)


@pytest.mark.parametrize("readout", ["z", "probability"])
@pytest.mark.parametrize("make", [CountingBackend, AutoBackend, ChainBackend])
def test_gradients_are_finite_differences(readout, make):
    if make is ChainBackend and readout != "z":
        pytest.skip("chain has no such readout")
    torch.autograd.gradcheck(lambda a: answer(make(), SPEC, a, readout), (angles().requires_grad_(),), atol=1e-7)


def test_exact_backends_are_followed_by_autograd():
    class Followed(ChainBackend):
        def submit(self, *arguments):
            raise AssertionError("submitted circuits where autograd would do")

    theta = angles(batch=2)
    followed = gradient(lambda a: answer(Followed(), SPEC, a), SPEC, "z", theta)
    torch.testing.assert_close(followed, gradient(lambda a: expectations(SPEC, a), SPEC, "z", theta))
    with pytest.raises(CircuitError, match=r"^angles: got 1 of 24 not finite"):
        answer(Followed(), SPEC, torch.where(torch.arange(24).view(theta.shape) == 3, math.nan, theta).requires_grad_())


def test_without_gradients_it_is_submit_and_result():
    class Other(ChainBackend):
        def differentiate(self, *arguments):
            raise AssertionError("followed what nobody asked for")

    backend = CountingBackend()
    assert torch.equal(answer(backend, SPEC, angles()), expectations(SPEC, angles()))
    with torch.no_grad():
        answer(backend, SPEC, angles().requires_grad_())
    assert len(backend.submitted) == 2


def test_a_backward_pass_is_one_submission():
    backend = CountingBackend()
    gradient(lambda a: answer(backend, SPEC, a), SPEC, "z", angles())
    assert [len(batch) for _, batch in backend.submitted] == [2, 2 * 2 * (2 * 3 * 2)]


def test_gradients_come_back_in_the_angles_own_dtype():
    theta = angles().float().requires_grad_()
    given_ = answer(CountingBackend(), SPEC, theta)
    assert given_.dtype == torch.float64
    given_.sum().backward()
    assert theta.grad.dtype == torch.float32


def test_a_second_derivative_is_refused():
    theta = angles().requires_grad_()
    (first,) = torch.autograd.grad((answer(CountingBackend(), SPEC, theta) ** 2).sum(), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="parameter-shift rule: got a second derivative; allowed: first"):
        first.sum().backward()


@pytest.mark.parametrize("readout", ["z", "probability"])
def test_gradients_from_shots_are_those_of_the_circuit(readout):
    # One answer's derivative is half the difference of two means: its standard error is below sqrt(1/2) / sqrt(shots).
    # 6 of those for 24 angles and at most 3 answers, all weighted by at most 2: false alarms below 1e-6.
    shots = 20_000
    sampled = gradient(lambda a: answer(ShotsBackend(shots), SPEC, a, readout), SPEC, readout, angles())
    followed = gradient(lambda a: EXACT[readout](SPEC, a), SPEC, readout, angles())
    width = SPEC.answer_width(readout)
    assert ((sampled - followed).abs() < 6 * 2 * width * math.sqrt(0.5 / shots)).all()


def test_gradients_from_shots_depend_on_the_keys_alone():
    def keyed(theta, keys):
        theta = theta.clone().requires_grad_()
        answer(ShotsBackend(20), SPEC, theta, "z", keys).sum().backward()
        return theta.grad

    theta, keys = angles(batch=4), torch.tensor([5, -3, 11, 2**62])
    whole = keyed(theta, keys)
    assert torch.equal(keyed(theta, keys), whole)
    assert torch.equal(torch.cat([keyed(theta[i : i + 1], keys[i : i + 1]) for i in range(4)]), whole)
    assert torch.equal(keyed(theta.flip(0), keys.flip(0)), whole.flip(0))
    assert not torch.equal(keyed(theta, keys + 1), whole)


def test_gradients_under_noise_are_finite_differences_of_the_density_matrix():
    pytest.importorskip("qiskit_aer")
    from qsgd_ray.circuits.aer.backend import AerBackend
    from qsgd_ray.circuits.aer.noise import Noise

    backend = AerBackend(noise=Noise(depolarizing_1q=0.05, depolarizing_2q=0.1, p01=0.02, p10=0.05, t1_us=20, t2_us=15))
    spec = CircuitSpec(2, 2, "chain", ("ry", "rx"))
    for readout in ("z", "probability"):
        torch.autograd.gradcheck(
            lambda a, readout=readout: answer(backend, spec, a, readout), (angles(spec).requires_grad_(),), atol=1e-7
        )


def test_gradients_through_an_estimator_are_autograd():
    from qiskit.primitives import StatevectorEstimator

    from qsgd_ray.circuits.backends.estimator import EstimatorBackend

    estimator = EstimatorBackend(StatevectorEstimator())
    shifted = gradient(lambda a: answer(estimator, SPEC, a), SPEC, "z", angles())
    followed = gradient(lambda a: expectations(SPEC, a), SPEC, "z", angles())
    torch.testing.assert_close(shifted, followed, rtol=0, atol=1e-10)


def test_every_angle_is_shifted_both_ways_once():
    theta = angles()
    shifted = _shifted_angles(theta).view(2, 12, 2, 12)
    difference = shifted - theta.view(2, 1, 1, 12)
    expected = torch.stack((torch.eye(12), -torch.eye(12)), 1).double() * (math.pi / 2)
    torch.testing.assert_close(difference, expected.expand(2, -1, -1, -1))


def test_an_empty_batch_has_no_gradient():
    theta = angles()[:0].requires_grad_()
    answer(CountingBackend(), SPEC, theta).sum().backward()
    assert theta.grad.shape == (0, 2, 3, 2)
