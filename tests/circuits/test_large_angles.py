"""Digits at large angles: float32 answers stay as near to float64's of the same angles as at small ones."""

import math

import pytest
import torch

from qsgd_ray.circuits.chain import expectations as chain
from qsgd_ray.circuits.fourier.series import FourierSeries
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate
from qsgd_ray.config import Perturbation
from qsgd_ray.models.attention import QuantumAttention
from qsgd_ray.optimizer.signals import make_signal

SIZES = [3.0, 1e2, 1e4, 1e6, 1e8]


def uniform(*shape, size, dtype=torch.float32):
    return ((torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1) * size).to(
        dtype
    )


def largest_error(function, x):
    exact = function(x.double())
    return (function(x).to(exact.dtype) - exact).abs().max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("entangle", ["chain", "ring", "all", "none"])
@pytest.mark.parametrize(
    "simulated", [simulate.expectations, simulate.statevector, simulate.weight_of_first, chain.expectations]
)
def test_circuits(simulated, entangle, size):
    spec = CircuitSpec(4, 3, entangle)
    assert largest_error(lambda a: simulated(spec, a), uniform(*spec.angles_shape(50), size=size)) < 2e-6


@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_circuits(size):
    spec = CircuitSpec(4, 3, "ring")

    def gradient(a):
        a = a.clone().requires_grad_()
        (simulate.expectations(spec, a) * torch.linspace(-1, 2, 4, dtype=a.dtype)).sum().backward()
        return a.grad

    assert largest_error(gradient, uniform(*spec.angles_shape(50), size=size)) < 2e-5


def test_float64_angles_keep_theirs():
    spec = CircuitSpec(4, 3, "ring")
    small = uniform(*spec.angles_shape(20), size=3.0, dtype=torch.float64)
    turns = 4 * math.pi * torch.round(uniform(*small.shape, size=1e6, dtype=torch.float64))
    # The chain takes cos and sin of each angle alone, so its answers are good to the rounding of the angles.
    twin = chain.expectations(spec, small + turns)
    torch.testing.assert_close(simulate.expectations(spec, small + turns), twin, rtol=0, atol=1e-13)


def test_a_circuit_with_large_angles_leaves_the_others_as_they_were():
    spec = CircuitSpec(4, 3, "ring")
    angles = uniform(*spec.angles_shape(20), size=3.0)
    mixed = torch.cat((angles, 1e6 * angles))
    assert torch.equal(simulate.expectations(spec, mixed)[:20], simulate.expectations(spec, angles))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_waves", [5, 8, 17, 33])
@pytest.mark.parametrize("scale", [1.0, 0.5, math.sqrt(8), -0.1])
def test_fourier_series(n_waves, scale, size):
    coefficients = uniform(1, n_waves, size=1 / n_waves, dtype=torch.float64)
    series, x = FourierSeries(coefficients), uniform(5000, size=size)
    assert largest_error(lambda x: series(x, scale=scale), x) < 3e-6

    def slope(x):
        x = x.clone().requires_grad_()
        series(x, scale=scale).sum().backward()
        return x.grad

    assert largest_error(slope, x) < 3e-6 * n_waves


@pytest.mark.parametrize("size", [10, 100, 1000])
def test_phi_of_large_scores(size):
    """Whole numbers, whose scores float32 holds exactly, with a scale that rounds."""
    torch.manual_seed(0)
    attention = QuantumAttention(CircuitSpec(2, 2))
    query, key = (torch.randint(-size, size + 1, (1, 1, 16, 2)).float() for _ in range(2))
    value = torch.eye(16)[None, None]
    double = QuantumAttention(CircuitSpec(2, 2)).double()
    double.load_state_dict(attention.state_dict())
    with torch.no_grad():
        # A scale of almost 0 makes the softmax even, so that what differs is Phi.
        apart = attention(query, key, value, scale=1e-12 / 3) - double(
            query.double(), key.double(), value.double(), scale=1e-12 / 3
        )
    assert apart.abs().max() < 3e-6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("source", ["sine", "random_sign", "shuffled", "circuit"])
def test_signals(source, size):
    signal, theta = make_signal(Perturbation(source=source), None), uniform(200, 4, size=size)
    keys = torch.arange(200).to(torch.uint64)

    def of(theta):
        if source == "circuit":
            return signal.submit(theta).result()
        return signal.of(theta, keys)

    assert largest_error(of, theta) < 1e-6
    if source == "sine":
        exact = torch.tensor([math.sin(math.pi * math.fmod(t, 2)) for t in theta.flatten().tolist()])
        assert (of(theta.double()).flatten() - exact).abs().max() < 1e-7
