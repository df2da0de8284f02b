import pytest
import torch

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.backends.protocol import Answered
from qsgd_ray.circuits.errors import CircuitError, CircuitMemoryError
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations

SPEC = CircuitSpec(3)


def angles(batch=5, dtype=torch.float64):
    return torch.randn(SPEC.angles_shape(batch), generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_answered_is_there_already():
    answer = torch.ones(2, 3)
    assert Answered(answer).result() is answer


def test_torch_backend_answers_with_the_simulator_in_float64():
    single = angles(dtype=torch.float32).requires_grad_()
    answer = TorchBackend().submit(SPEC, single).result()
    assert answer.dtype == torch.float64
    assert torch.equal(answer, expectations(SPEC, single.detach().double()))
    # An answer is a tensor like any other: autograd may keep it.
    (torch.ones(3, dtype=torch.float64, requires_grad=True) * answer).sum().backward()


def test_differentiating_after_an_answer_works():
    # What the backend leaves in the simulator's caches must not be tied to its inference mode.
    spec = CircuitSpec(7, 1)
    TorchBackend().submit(spec, torch.zeros(1, 1, 7, 2))
    expectations(spec, torch.zeros(1, 1, 7, 2, requires_grad=True)).sum().backward()


def test_torch_backend_refuses_angles_of_another_shape():
    with pytest.raises(CircuitError, match=r"^angles: got shape \(1, 2, 4, 2\); allowed for CircuitSpec"):
        TorchBackend().submit(SPEC, torch.zeros(1, 2, 4, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_torch_backend_refuses_angles_that_are_not_finite(value):
    bad = angles()
    bad[1, 1, 2, 1] = value
    with pytest.raises(CircuitError) as error:
        TorchBackend().submit(SPEC, bad)
    assert str(error.value) == "angles: got 1 of 60 not finite; allowed: finite radians"


def test_finite_angles_whose_sum_overflows_are_answered():
    assert TorchBackend().submit(SPEC, torch.full((5, 2, 3, 2), 1e308, dtype=torch.float64)).result().isfinite().all()


def test_torch_backend_refuses_a_state_that_does_not_fit():
    with pytest.raises(CircuitMemoryError):
        TorchBackend(memory_bytes=300).submit(SPEC, angles())
    assert TorchBackend(memory_bytes=320).submit(SPEC, angles()).result().shape == (5, 3)
