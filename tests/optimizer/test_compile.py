"""SuperpositionalAdamW under torch.compile."""

import pytest
import torch
from support.client_training import (
    PERTURBATIONS,
    QUIET_DYNAMO,
    SINES,
    a_model,
    flat,
    loss_of,
    named,
    some_batches,
)

from qsgd_ray.optimizer import SuperpositionalAdamW

pytestmark = QUIET_DYNAMO


@pytest.fixture
def wide():
    """Compiled, AdamW corrects its bias in torch's default dtype, not in Python floats; float64 makes them one."""
    torch.set_default_dtype(torch.float64)
    torch._dynamo.reset()
    yield
    torch.set_default_dtype(torch.float32)
    torch._dynamo.reset()


def compiled_training(compiling, make, n=8):
    """`compiling`: what of it is compiled: nothing, the model, the optimizer's step, or the whole training step."""
    model = a_model()
    optimizer = make(model.parameters(), lr=1e-2)
    forward = torch.compile(model, backend="eager") if compiling == "model" else model
    step = torch.compile(optimizer.step, backend="eager") if compiling == "optimizer" else optimizer.step

    def train_step(batch):
        optimizer.zero_grad()
        loss_of(forward, batch).backward()
        step()

    train_step = torch.compile(train_step, backend="eager") if compiling == "training step" else train_step
    for batch in some_batches(n):
        train_step(batch)
    return flat(model.parameters())


def perturbed(**own):
    return lambda *args, **kw: SuperpositionalAdamW(*args, **kw, **own)


@pytest.mark.filterwarnings("ignore")  # see test_compiling_it_warns_of_nothing
@pytest.mark.parametrize("own", PERTURBATIONS, ids=named)
@pytest.mark.parametrize("compiling", ["model", "training step"])
def test_compiled_it_goes_where_it_goes_eagerly(wide, compiling, own):
    make = perturbed(**own, telemetry_every=3)
    eager, compiled = compiled_training(None, make), compiled_training(compiling, make)
    assert (compiled - eager).abs().max() < 1e-12


@pytest.mark.parametrize("compiling", ["model", "training step"])
def test_compiled_without_perturbation_it_is_adamw_compiled_or_not(wide, compiling):
    ours = compiled_training(compiling, perturbed(lambda_=0.0))
    assert (compiled_training(compiling, torch.optim.AdamW) - ours).abs().max() < 1e-12


@pytest.mark.parametrize("own", [SINES[1], SINES[0], PERTURBATIONS[2]], ids=named)
def test_compiling_it_warns_of_nothing(wide, own):
    compiled_training("training step", perturbed(**own), n=2)
