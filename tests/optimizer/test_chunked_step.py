"""Every coordinate in one pass by the kernel: what goes chunk by chunk in float64, within float32's rounding."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.optimizers import NEEDS_COMPILER, flat

from qsgd_ray.native import compiler as native
from qsgd_ray.optimizer import SuperpositionalAdamW, _engine
from qsgd_ray.optimizer import _chunked_step as chunked_step

SHAPES = ((40, 30), (17,), (1,), (0,), (9, 3))


@pytest.fixture
def kernels(monkeypatch):
    """The number of pieces of each call of the kernel, which small models use here too."""
    calls = []
    take = chunked_step.one_pass_step
    monkeypatch.setattr(chunked_step, "NATIVE_FROM", 1)
    monkeypatch.setattr(_engine, "NATIVE_FROM", 1)
    monkeypatch.setattr(
        chunked_step, "one_pass_step", lambda pieces, *rest: calls.append(len(pieces)) or take(pieces, *rest)
    )
    return calls


def parameters_of(dtypes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for shape, dtype in zip(SHAPES, dtypes, strict=True)
    ]


def stepped(parameters, own=0.5, steps=10, **options):
    """Their coordinates after the steps, and the telemetry."""
    groups = [{"params": parameters[:1], "lambda_": own}, {"params": parameters[1:], "lr": 3e-3}]
    ours = SuperpositionalAdamW(groups, lr=1e-2, eps=1e-3, scope="all", weight_decay=0.1, telemetry_every=5, **options)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        ours.step()
    return flat(parameters).double(), ours.telemetry()


FLOAT32, FLOAT64 = [torch.float32] * len(SHAPES), [torch.float64] * len(SHAPES)


@pytest.mark.slow
@NEEDS_COMPILER
@settings(max_examples=60)
@given(
    source=st.sampled_from(["sine", "gradient", "random_sign", "shuffled"]),
    formula=st.sampled_from(["adamw", "paper"]),
    placement=st.sampled_from(["update", "moments"]),
    direction=st.sampled_from(["gradient", "preconditioned"]),
    maximize=st.booleans(),
    n_qubits=st.integers(1, 6),
    chunk=st.sampled_from([1, 50, 2**19]),
    own=st.sampled_from([0.0, 0.5]),
)
def test_the_kernel_takes_the_chunks_step_within_rounding(chunk, own, **options):
    exact, exactly = stepped(parameters_of(FLOAT64), own, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_step, "NATIVE_FROM", 1)
        patch.setattr(chunked_step, "CHUNK", chunk)
        theta, telemetry = stepped(parameters_of(FLOAT32), own, **options)
    assert (theta - exact).abs().max() < 1e-5  # 10 steps, a rounding of numbers up to 4 in each
    assert telemetry[:2] == pytest.approx(exactly[:2], rel=1e-5)
    for group, expected in zip(telemetry.groups, exactly.groups, strict=True):
        assert group == pytest.approx(expected, rel=1e-4, abs=1e-9)


@NEEDS_COMPILER
def test_all_pieces_of_a_step_go_in_one_call_but_those_without_perturbation(kernels):
    stepped(parameters_of(FLOAT32))
    stepped(parameters_of(FLOAT32), own=0.0)
    assert kernels == [4] * 10 + [3] * 10  # the empty parameter has no run


@NEEDS_COMPILER
def test_other_dtypes_go_chunk_by_chunk_beside_it(kernels):
    mixed = [torch.float32, torch.bfloat16, torch.float64, torch.float32, torch.float32]
    theta, _ = stepped(parameters_of(mixed), source="random_sign")
    assert kernels == [1] * 20  # a piece of each of two parameters
    with mock.patch.object(chunked_step, "NATIVE_FROM", 2**20):
        expected, _ = stepped(parameters_of(mixed), source="random_sign")
    assert (theta - expected).abs().max() < 1e-5


@pytest.mark.parametrize("native_from", [1, 2**20])
@pytest.mark.parametrize("kernel", [{"fused": True}, {"foreach": True}, {}])
def test_a_group_without_perturbation_is_torch_s_bit_for_bit(monkeypatch, native_from, kernel):
    monkeypatch.setattr(chunked_step, "NATIVE_FROM", native_from)
    monkeypatch.setattr(chunked_step, "CHUNK", 1000)  # torch's fused kernel rounds otherwise where a tensor is cut
    ours, theirs = ([torch.nn.Parameter(torch.linspace(-1, 1, n)) for n in (50_000, 7)] for _ in range(2))
    shared = {"lr": 1e-2, "weight_decay": 0.1, **kernel}
    groups = [{"params": ours[:1], "lambda_": 0.0}, {"params": ours[1:]}]
    perturbed = SuperpositionalAdamW(groups, scope="all", n_qubits=3, **shared)
    adamw = torch.optim.AdamW(theirs, **shared)
    for step in range(10):
        for parameters, own in ((ours, perturbed), (theirs, adamw)):
            for parameter in parameters:
                generator = torch.Generator().manual_seed(step)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            own.step()
    assert torch.equal(ours[0], theirs[0])
    assert not torch.equal(ours[1], theirs[1])


def test_only_what_is_perturbed_may_not_be_shrunk_away():
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    groups = [{"params": parameters[:1], "lambda_": 0.0, "weight_decay": 200.0}, {"params": parameters[1:]}]
    ours = SuperpositionalAdamW(groups, lr=0.01, scope="all")
    for parameter in parameters:
        parameter.grad = torch.ones(3)
    ours.step()
    ours.param_groups[1]["weight_decay"] = 100.0
    with pytest.raises(ValueError, match=r"^lr \* weight_decay: got 1; allowed with scope all: below 1$"):
        ours.step()


@pytest.mark.parametrize("source", ["sine", "shuffled"])
def test_without_a_compiler_it_goes_chunk_by_chunk(monkeypatch, caplog, source):
    expected, _ = stepped(parameters_of(FLOAT32), source=source)
    monkeypatch.setattr(chunked_step, "NATIVE_FROM", 1)
    monkeypatch.setattr(native, "_libraries", {})
    monkeypatch.setenv("CXX", "/no/such/compiler")
    theta, _ = stepped(parameters_of(FLOAT32), source=source)
    assert torch.equal(theta, expected)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("native_from", [1, 2**20])
def test_a_parameter_frozen_after_its_backward_pass_takes_adam_s_step(monkeypatch, native_from):
    monkeypatch.setattr(chunked_step, "NATIVE_FROM", native_from)
    ours, theirs = parameters_of(FLOAT32), parameters_of(FLOAT32)
    for parameters, optimizer_class in ((ours, SuperpositionalAdamW), (theirs, torch.optim.AdamW)):
        options = {"scope": "all"} if optimizer_class is SuperpositionalAdamW else {}
        own = optimizer_class(parameters, **options)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        parameters[0].requires_grad_(False)
        own.step()
    assert torch.equal(ours[0], theirs[0])
