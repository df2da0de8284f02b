"""The kernel of chains against its twin in Python: values, gradients, further derivatives, memory, threads, NaN."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.circuits import ENTANGLE, angles_of, seeds, specs, twin_expectations
from support.optimizers import NEEDS_COMPILER

from qsgd_ray.circuits.chain import _native
from qsgd_ray.circuits.chain._blocks import CHUNK_BYTES, prepare_angles
from qsgd_ray.circuits.chain.expectations import expectations
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector import simulate
from qsgd_ray.native import compiler

pytestmark = NEEDS_COMPILER


def gradient(function, spec, angles, weights, **options):
    angles = angles.clone().requires_grad_()
    return torch.autograd.grad(function(spec, angles, **options), angles, weights)[0]


def weights_of(spec, batch, dtype=torch.float64):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, spec.n_qubits, generator=generator, dtype=torch.float64).to(dtype)


@settings(deadline=None, max_examples=60)
@given(specs(12, 3), seeds, st.integers(1, 20), st.sampled_from([1, 2**14, CHUNK_BYTES]))
def test_values_and_gradients_are_those_of_the_twin(spec, seed, batch, memory_bytes):
    angles, weights = angles_of(spec, batch, seed), weights_of(spec, batch)
    assert _native.answers(*prepare_angles(spec, angles))
    z = expectations(spec, angles, memory_bytes=memory_bytes)
    assert (z - twin_expectations(spec, angles)).abs().max() < 1e-14
    slope = gradient(expectations, spec, angles, weights, memory_bytes=memory_bytes)
    assert (slope - gradient(twin_expectations, spec, angles, weights)).abs().max() < 1e-13


@pytest.mark.parametrize("entangle", ["chain", "all"])
def test_four_layers_are_those_of_the_twin(entangle):
    spec = CircuitSpec(9, 4, entangle, ("rx", "ry", "rz"))
    angles, weights = angles_of(spec, 3), weights_of(spec, 3)
    assert (expectations(spec, angles) - twin_expectations(spec, angles)).abs().max() < 1e-14
    twin = gradient(twin_expectations, spec, angles, weights)
    assert (gradient(expectations, spec, angles, weights) - twin).abs().max() < 1e-13


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_float32_gradients_are_those_of_float64(entangle):
    spec = CircuitSpec(7, 2, entangle)
    angles, weights = angles_of(spec, 21), weights_of(spec, 21)
    single = gradient(expectations, spec, angles.float(), weights.float())
    assert single.dtype == torch.float32
    assert (single - gradient(expectations, spec, angles.float().double(), weights)).abs().max() < 1e-5


@settings(deadline=None, max_examples=30)
@given(specs(7, 3), seeds)
def test_values_are_those_of_the_statevector(spec, seed):
    angles = angles_of(spec, 3, seed)
    assert (expectations(spec, angles) - simulate.expectations(spec, angles)).abs().max() < 1e-12


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_gradients_depend_on_no_neighbour_block_or_thread(entangle, monkeypatch):
    monkeypatch.setattr(_native, "_THREADS_FROM", 1)
    spec = CircuitSpec(40, 2, entangle)
    angles, weights = angles_of(spec, 50), weights_of(spec, 50)
    whole = gradient(expectations, spec, angles, weights)
    halves = [gradient(expectations, spec, angles[part], weights[part]) for part in (slice(13), slice(13, None))]
    assert torch.equal(torch.cat(halves), whole)
    assert torch.equal(gradient(expectations, spec, angles, weights, memory_bytes=1), whole)
    threads = torch.get_num_threads()
    try:
        for other in (1, 3):
            torch.set_num_threads(other)
            assert torch.equal(gradient(expectations, spec, angles, weights), whole)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_derivatives_to_the_third_are_those_of_the_twin(entangle):
    spec = CircuitSpec(3, 2, entangle)
    angles, direction, weights = angles_of(spec, 2), angles_of(spec, 2, 1), weights_of(spec, 2)

    def further(function):
        a, w = angles.clone().requires_grad_(), weights.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(spec, a), a, w, create_graph=True)
        only_second = torch.autograd.grad(slope, (a, w), direction, retain_graph=True)
        second = torch.autograd.grad(slope, (a, w), direction, create_graph=True)
        return *only_second, *second, *torch.autograd.grad(second[0].square().sum() + second[1].sum(), (a, w))

    for native, twin in zip(further(expectations), further(twin_expectations), strict=True):
        torch.testing.assert_close(native, twin, rtol=0, atol=1e-11)


@pytest.mark.parametrize("entangle", ENTANGLE)
def test_gradgradcheck(entangle):
    spec = CircuitSpec(3, 2, entangle)
    angles = angles_of(spec, 1).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda a: expectations(spec, a), angles)


@pytest.mark.parametrize("entangle", ENTANGLE)
@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf])
def test_a_circuit_with_an_infinite_angle_is_nan_where_the_twin_is_and_its_neighbours_keep_their_bits(entangle, wild):
    spec = CircuitSpec(6, 2, entangle)
    angles, weights = angles_of(spec, 5), weights_of(spec, 5)
    other = angles.clone()
    other[2, 0, 3, 0] = wild
    z = expectations(spec, other)
    assert torch.equal(z.isnan(), twin_expectations(spec, other).isnan())
    assert z[2].isnan().any()
    rest = torch.tensor([0, 1, 3, 4])
    assert torch.equal(z[rest], expectations(spec, angles)[rest])
    slopes = [gradient(expectations, spec, a, weights)[rest] for a in (angles, other)]
    assert torch.equal(*slopes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosines_and_sines_are_exact_to_the_last_digits(dtype):
    spec = CircuitSpec(1, 1, "none", ("ry",))  # <Z> = -sin a
    angles = torch.cat([torch.linspace(-size, size, 3001, dtype=torch.float64) for size in (4, 300, 99_999, 2e5, 1e9)])
    angles = angles.to(dtype)
    error = expectations(spec, angles[:, None, None, None])[:, 0].double() + torch.sin(angles.double())
    assert error.abs().max() < (2e-7 if dtype == torch.float32 else 4e-16)


def test_angles_that_are_views_are_read_right():
    spec = CircuitSpec(5, 2)
    angles = angles_of(spec, 4)
    z = expectations(spec, angles)
    assert torch.equal(expectations(spec, angles.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)), z)
    negative = torch.complex(torch.zeros_like(angles), -angles).conj().imag
    assert negative.is_neg()
    assert torch.equal(expectations(spec, negative), z)


def test_without_a_compiler_the_twin_answers(monkeypatch, caplog):
    monkeypatch.setattr(compiler, "_libraries", {})
    monkeypatch.setattr(compiler, "_built", lambda *_: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    spec = CircuitSpec(5, 2)
    angles, weights = angles_of(spec, 4), weights_of(spec, 4)
    assert torch.equal(expectations(spec, angles), twin_expectations(spec, angles))
    assert torch.equal(
        gradient(expectations, spec, angles, weights), gradient(twin_expectations, spec, angles, weights)
    )
    assert "no C++ kernel" in caplog.text


def test_deeper_circuits_are_the_twins():
    spec = CircuitSpec(4, 5)
    assert not _native.answers(*prepare_angles(spec, angles_of(spec)))
    assert torch.equal(expectations(spec, angles_of(spec)), twin_expectations(spec, angles_of(spec)))
