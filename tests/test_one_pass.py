"""Adam's step and the sine in one kernel: as exact as float32, and as what goes chunk by chunk."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray import compiled, optimizer
from qsgd_ray.one_pass import sin_pi
from qsgd_ray.optimizer import SuperpositionalAdamW

SHAPES = ((40, 30), (17,), (1,), (0,))


@pytest.fixture
def as_written(monkeypatch):
    """A compiler that gives back what it is given: compiling takes seconds."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(compiled, "_kernels", {})


def parameters_of(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def stepped(parameters, own, steps=20, **options):
    groups = [{"params": parameters[:1], "lambda_": own}, {"params": parameters[1:], "lr": 3e-3}]
    ours = SuperpositionalAdamW(groups, lr=1e-2, scope="all", weight_decay=0.1, telemetry_every=7, **options)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        ours.step()
    return torch.cat([parameter.detach().double().reshape(-1) for parameter in parameters])


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=50))
def test_sin_pi_is_the_sine(x):
    found = sin_pi(torch.tensor(x, dtype=torch.float32)).double().numpy()
    exact = np.sin(np.pi * (np.array(x, dtype=np.float32).astype(np.float64) % 2))
    assert np.abs(found - exact).max() < 3e-7


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("own", [0.5, 0.0])
def test_it_is_the_chunks_step_within_rounding(monkeypatch, maximize, own):
    exact = stepped(parameters_of(torch.float64), own, maximize=maximize)
    kernels = []
    monkeypatch.setattr(optimizer, "ONE_PASS_FROM", 1)
    take = optimizer.take_sine_step
    monkeypatch.setattr(optimizer, "take_sine_step", lambda piece: kernels.append(piece) or take(piece))
    found = stepped(parameters_of(torch.float32), own, maximize=maximize)
    assert (found - exact).abs().max() < 5e-6  # 20 steps, a rounding of numbers up to 4 in each
    # Twenty steps but the two that are sampled; without the empty parameter, and without the group whose lambda is 0.
    assert len(kernels) == 18 * (3 if own else 2)


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize(
    "other", [{"placement": "moments"}, {"direction": "preconditioned"}, {"formula": "paper"}, {"source": "shuffled"}]
)
def test_other_readings_go_chunk_by_chunk(monkeypatch, other):
    monkeypatch.setattr(optimizer, "ONE_PASS_FROM", 1)
    monkeypatch.setattr(optimizer, "take_sine_step", lambda _: pytest.fail("it was asked"))
    stepped(parameters_of(torch.float32), 0.5, 2, **other)


def test_without_a_compiler_it_goes_chunk_by_chunk(monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("no C++ compiler")

    expected = stepped(parameters_of(torch.float32), 0.5)
    monkeypatch.setattr(optimizer, "ONE_PASS_FROM", 1)
    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    monkeypatch.setattr(compiled, "_kernels", {})
    assert torch.equal(stepped(parameters_of(torch.float32), 0.5), expected)
    assert [record.message for record in caplog.records] == [
        "torch.compile failed, evaluated without it: no C++ compiler"
    ]
