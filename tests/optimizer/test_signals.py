import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_optimizer as reference
from support.fake_backends import CountingBackend

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.select.auto import AutoBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import Perturbation
from qsgd_ray.config.circuit import Entangle, Rotation
from qsgd_ray.optimizer.signals import CircuitSignal, circuit_angles, make_signal

entanglements = st.sampled_from(get_args(Entangle))
rotation_lists = st.lists(st.sampled_from(get_args(Rotation)), min_size=1, max_size=3).map(tuple)


def theta_of(batch, width, seed=0):
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sine_is_the_paper_s_rule():
    theta = theta_of(3, 4)
    assert (
        np.abs(
            make_signal(Perturbation(source="sine"), None).submit(theta).result().numpy()
            - np.sin(np.pi * theta.numpy())
        ).max()
        < 1e-15
    )


def test_zero_is_zero():
    assert torch.equal(
        make_signal(Perturbation(source="zero"), None).submit(theta_of(3, 4)).result(),
        torch.zeros(3, 4, dtype=torch.float64),
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 3), entanglements, rotation_lists, st.integers(0, 1000))
def test_circuit_signal_is_that_of_the_naive_twin(width, depth, entangle, rotations, seed):
    theta = theta_of(2, width, seed)
    s = CircuitSignal(TorchBackend(), depth, entangle, rotations).submit(theta).result().numpy()
    exact = reference.circuit_signal(depth, entangle, rotations)
    assert max(np.abs(s[block] - exact(theta[block].numpy())).max() for block in range(2)) < 1e-12


def test_depth_one_without_entanglement_is_the_sine():
    theta = theta_of(7, 4)
    circuit = CircuitSignal(TorchBackend(), depth=1, entangle="none").submit(theta).result()
    assert (circuit - make_signal(Perturbation(source="sine"), None).submit(theta).result()).abs().max() < 1e-14


def test_a_block_is_a_circuit_of_its_own_width():
    backend = CountingBackend()
    CircuitSignal(backend, depth=3, entangle="none").submit(theta_of(5, 2).float())
    ((spec, angles),) = backend.submitted
    assert spec == CircuitSpec(2, 3, False)
    assert (angles.shape, angles.dtype) == (spec.angles_shape(5), torch.float64)


def test_angles_are_minus_and_plus_pi_theta_in_every_layer():
    theta = theta_of(2, 3)
    angles = circuit_angles(CircuitSpec(3, 2), theta)
    for block in range(2):
        assert np.array_equal(angles[block].numpy(), reference.theta_angles(2, theta[block].numpy()))


def test_a_block_that_is_not_finite_has_no_circuit_and_leaves_the_others_alone():
    theta = theta_of(4, 3)
    theta[1, 2], theta[3, 0] = math.nan, math.inf
    backend = CountingBackend()
    s = CircuitSignal(backend, 2, True).submit(theta).result()
    assert s[[1, 3]].isnan().all()
    assert torch.equal(s[[0, 2]], CircuitSignal(TorchBackend(), 2, True).submit(theta[[0, 2]]).result())
    assert len(backend.submitted[0][1]) == 2


def test_where_no_block_is_finite_no_circuit_is_asked():
    backend = CountingBackend()
    assert CircuitSignal(backend, 2, True).submit(torch.full((2, 3), math.nan)).result().isnan().all()
    assert backend.submitted == []


@pytest.mark.parametrize(
    ("source", "kind"), [("sine", "_SineSignal"), ("zero", "_ZeroSignal"), ("circuit", "CircuitSignal")]
)
def test_make_signal_knows_every_source(source, kind):
    assert type(make_signal(Perturbation(source=source), None)).__name__ == kind


def test_make_signal_hands_the_circuit_s_settings_on():
    backend = CountingBackend()
    signal = make_signal(Perturbation(source="circuit", depth=3, entangle=False), backend)
    assert (signal.backend, signal.spec(4)) == (backend, CircuitSpec(4, 3, "none"))
    assert isinstance(make_signal(Perturbation(source="circuit"), None).backend, AutoBackend)
