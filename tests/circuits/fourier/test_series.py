import logging
import math
import subprocess
import sys
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.circuits import specs
from support.fake_backends import CountingBackend
from support.reference_attention import naive_response

from qsgd_ray.circuits.fourier import _evaluate, _fused, series
from qsgd_ray.circuits.fourier._bases import frequencies
from qsgd_ray.circuits.fourier.series import FourierSeries, fourier_series, n_frequencies
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import first_amplitudes, weight_of_first

PAPER = CircuitSpec(4, 2)
FUSED = (_fused.fused_values, _fused.fused_gradients)
READOUTS = ("amplitude", "probability")


def head_angles(spec, n_heads=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spec.angles_shape(n_heads), generator=generator, dtype=torch.float64)


def scores_with_corners(n=60, scale=50.0, seed=1):
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale
    corners = [0.0, math.pi, -math.pi, 2 * math.pi, math.pi / 2, 50.0, -50.0, 1e-9, math.pi * (1 + 1e-15)]
    return torch.cat((x, torch.tensor(corners, dtype=torch.float64)))


def simulated(spec, angles_dnr, readout, x):
    """One circuit a score."""
    shift = torch.zeros(len(spec.rotations), dtype=torch.float64)
    shift[0] = 1
    angles = angles_dnr + x.double().reshape(-1, 1, 1, 1) * shift
    if readout == "amplitude":
        return first_amplitudes(spec, angles).real.sum(1)
    return weight_of_first(spec, angles)[:, 0]


@pytest.mark.parametrize("readout", READOUTS)
@given(spec=specs(4, 3), seed=st.integers(0, 99), score=st.floats(-60, 60))
@settings(max_examples=30)
def test_the_series_is_the_circuit_at_every_score(readout, spec, seed, score):
    angles = head_angles(spec, seed=seed)
    value = fourier_series(spec, angles, readout)(torch.tensor([score], dtype=torch.float64))
    assert abs(value.item() - naive_response(spec, angles[0], readout, score)) < 1e-12


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize(
    "spec",
    [
        PAPER,
        CircuitSpec(1, 1),
        CircuitSpec(3, 1, "ring"),
        CircuitSpec(2, 3, "all", ("rx", "rz", "ry")),
        CircuitSpec(6, 4),
        CircuitSpec(5, 3, "none", ("rz", "rx")),
    ],
    ids=str,
)
def test_errors_stay_below_1e_12_in_float64_and_1e_5_in_float32(spec, readout):
    angles, x = head_angles(spec), scores_with_corners()
    f = fourier_series(spec, angles, readout)
    assert (f(x) - simulated(spec, angles[0], readout, x)).abs().max() < 1e-12
    single = f(x.float())
    assert single.dtype == torch.float32
    assert (single - simulated(spec, angles[0], readout, x.float())).abs().max() < 1e-5


@pytest.mark.parametrize("n_waves", [9, 17, 10, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_worst_coefficients_keep_the_bound_of_the_waves(n_waves, dtype):
    """All coefficients at one: the sum is large, so the bound is relative to the sum of their sizes."""
    x = scores_with_corners().to(dtype)
    f = FourierSeries(torch.ones(1, n_waves, dtype=torch.float64))
    phases = torch.tensor(frequencies(n_waves), dtype=torch.float64) * x.double()[:, None]
    waves = torch.cat((phases.cos(), phases.sin()[:, n_waves % 2 :]), 1)
    assert (f(x) - waves.sum(1)).abs().max() < n_waves * (1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("tangent", [True, False])
def test_the_vector_tangent_and_torchs_sine_give_the_same_values(monkeypatch, tangent):
    monkeypatch.setattr(_evaluate, "_numpy_has_a_vector_tangent", lambda: tangent)
    for spec in (PAPER, CircuitSpec(3, 1)):
        angles, x = head_angles(spec), scores_with_corners()
        value = fourier_series(spec, angles)(x)
        assert (value - simulated(spec, angles[0], "amplitude", x)).abs().max() < 1e-12


@pytest.mark.parametrize("spec", [CircuitSpec(3, 1), CircuitSpec(3, 3)], ids=str)
def test_an_odd_number_of_rotations_makes_an_amplitude_change_its_sign_every_full_turn(spec):
    f, x = fourier_series(spec, head_angles(spec)), scores_with_corners(scale=3.0)
    torch.testing.assert_close(f(x + 2 * math.pi), -f(x))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5), (2, 2, 3, 1, 6)])
def test_every_head_has_its_own_circuit(readout, shape):
    angles, x = head_angles(PAPER, 3), scores_with_corners(math.prod(shape))[: math.prod(shape)].view(shape)
    value = fourier_series(PAPER, angles, readout)(x)
    for head in range(3):
        of_head = simulated(PAPER, angles[head], readout, x.select(-3, head)).view(x.select(-3, head).shape)
        torch.testing.assert_close(value.select(-3, head), of_head, rtol=0, atol=1e-12)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("n_heads", [1, 2])
@pytest.mark.parametrize(
    "spec", [CircuitSpec(2, 2), CircuitSpec(3, 1, "ring"), CircuitSpec(2, 1, "all", ("rx", "rz", "ry"))], ids=str
)
def test_gradients_in_scores_and_angles_are_the_finite_differences(spec, readout, n_heads):
    angles = head_angles(spec, n_heads).requires_grad_()
    x = scores_with_corners(n_heads * 6, scale=5.0)[: n_heads * 6].view(1, n_heads, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, x: fourier_series(spec, a, readout)(x), (angles, x))


@pytest.mark.parametrize("shape", [(2, 3, 40, 50), (1, 3, 1, 4001), (4001, 3, 1, 1)])
def test_slabs_change_no_value_and_no_gradient(monkeypatch, shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    coefficients = torch.randn(3, 21, dtype=torch.float64, requires_grad=True)

    def everything():
        value = FourierSeries(coefficients)(x)
        return value.detach(), *torch.autograd.grad(value.cos().sum(), (coefficients, x))

    whole = everything()
    monkeypatch.setattr(_evaluate, "_SLAB_BYTES", 1)  # the smallest slabs
    torch.testing.assert_close(whole, everything(), rtol=1e-12, atol=1e-12)


def test_gradients_come_for_scores_alone_and_for_angles_alone():
    x, angles = scores_with_corners(), head_angles(PAPER)
    (of_x,) = torch.autograd.grad(fourier_series(PAPER, angles)(x.requires_grad_()).sum(), x)
    step = 1e-6
    f, at = fourier_series(PAPER, angles), x.detach()
    torch.testing.assert_close(of_x, (f(at + step) - f(at - step)) / (2 * step), rtol=0, atol=1e-7)
    (of_angles,) = torch.autograd.grad(fourier_series(PAPER, angles.requires_grad_())(at).sum(), angles)
    # adding to every first angle is adding to the score
    torch.testing.assert_close(of_angles[..., 0].sum(), of_x.sum(), rtol=0, atol=1e-10)


def test_no_scores_have_an_empty_answer_and_gradient():
    x = torch.empty(0, 2, 3, 4, requires_grad=True)
    angles = head_angles(PAPER, 2).requires_grad_()
    fourier_series(PAPER, angles)(x).sum().backward()
    assert x.grad.shape == x.shape
    assert not angles.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_lower_precision_are_evaluated_in_float32(dtype):
    f, x = fourier_series(PAPER, head_angles(PAPER)), scores_with_corners(scale=3.0).to(dtype)
    assert torch.equal(f(x), f(x.float()))


def test_infinite_scores_give_nan_in_silence():
    f = fourier_series(PAPER, head_angles(PAPER))
    assert f(torch.tensor([math.inf, -math.inf, math.nan], dtype=torch.float64)).isnan().all()


def test_inference_mode_before_training_changes_neither_values_nor_gradients():
    angles, x = head_angles(PAPER).requires_grad_(), scores_with_corners()
    with torch.inference_mode():
        inferred = fourier_series(PAPER, angles)(x)
    value = fourier_series(PAPER, angles)(x)
    value.sum().backward()
    assert torch.equal(inferred, value.detach())
    assert angles.grad.isfinite().all()


@pytest.mark.parametrize(("readout", "circuits"), [("amplitude", 9), ("probability", 17)])
def test_four_qubits_of_depth_two_take_so_many_circuits(readout, circuits):
    assert (
        n_frequencies(PAPER, readout)
        == circuits
        == fourier_series(PAPER, head_angles(PAPER), readout).coefficients.shape[1]
    )


def test_a_backend_gets_one_circuit_a_point_and_gives_the_same_series():
    backend, angles, x = CountingBackend(), head_angles(PAPER, 2), scores_with_corners(48)[:48].view(2, 2, 4, 3)
    answered = fourier_series(PAPER, angles, "probability", backend=backend)(x)
    assert [tuple(circuits.shape) for _, circuits in backend.submitted] == [(2 * 17, 2, 4, 2)]
    torch.testing.assert_close(answered, fourier_series(PAPER, angles, "probability")(x), rtol=0, atol=1e-12)


def test_gradients_flow_through_a_backend():
    spec = CircuitSpec(2, 1)
    angles, x = head_angles(spec).requires_grad_(), scores_with_corners()
    (by_backend,) = torch.autograd.grad(
        fourier_series(spec, angles, "probability", backend=CountingBackend())(x).sum(), angles
    )
    (exact,) = torch.autograd.grad(fourier_series(spec, angles, "probability")(x).sum(), angles)
    torch.testing.assert_close(by_backend, exact)


def test_amplitudes_from_a_backend_are_refused():
    with pytest.raises(ValueError, match="'amplitude' with a backend; allowed: 'probability'"):
        fourier_series(PAPER, head_angles(PAPER), backend=CountingBackend())


def test_an_unknown_readout_is_refused():
    with pytest.raises(ValueError, match="readout: got 'z'; allowed: amplitude, probability"):
        fourier_series(PAPER, head_angles(PAPER), "z")
    assert get_args(series.SeriesReadout) == READOUTS


def test_scores_that_do_not_fit_the_heads_are_refused():
    with pytest.raises(ValueError, match=r"x: got shape \(3, 4, 5\); allowed: \(..., 2, i, j\)"):
        fourier_series(PAPER, head_angles(PAPER, 2))(torch.zeros(3, 4, 5))


def test_scores_that_are_no_real_floats_are_refused():
    with pytest.raises(ValueError, match=r"x: got torch\.int64"):
        fourier_series(PAPER, head_angles(PAPER))(torch.zeros(3, dtype=torch.int64))


def test_angles_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="angles: got shape"):
        fourier_series(PAPER, torch.zeros(2, 4, 2))


@pytest.mark.parametrize("n_waves", [9, 6])
def test_compiled_values_and_gradients_equal_those_of_slabs(monkeypatch, n_waves):
    """The expressions themselves stand in for their kernels: compiling takes seconds."""
    monkeypatch.setattr(_fused, "_kernels", {f: f for f in FUSED})
    x = scores_with_corners(48)[:48].view(4, 3, 4, 1).requires_grad_()
    coefficients = torch.randn(3, n_waves, dtype=torch.float64, requires_grad=True)

    def everything(compiled):
        value = FourierSeries(coefficients)(x, compiled=compiled)
        return value.detach(), *torch.autograd.grad(value.cos().sum(), (coefficients, x))

    torch.testing.assert_close(everything(True), everything(False), rtol=0, atol=1e-11)


def test_without_a_compiler_one_line_is_logged_and_the_slabs_answer(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(_fused, "_kernels", dict.fromkeys(FUSED, broken))
    angles, x = head_angles(PAPER).requires_grad_(), scores_with_corners()
    with caplog.at_level(logging.WARNING):
        values = [fourier_series(PAPER, angles)(x, compiled=True) for _ in range(2)]
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile failed, evaluated without it: no C++ compiler"
    ]
    assert torch.equal(values[0], fourier_series(PAPER, angles)(x))


def test_importing_it_loads_neither_qiskit_nor_transformers_nor_ray():
    code = "import sys, qsgd_ray.circuits.fourier.series, qsgd_ray.models.huggingface, qsgd_ray.models.transformer;"
    code += "print([m for m in ('qiskit', 'transformers', 'ray', 'torch._dynamo') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
