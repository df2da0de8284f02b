"""SuperpositionalAdamW under the schedulers of torch."""

import copy

import pytest
import torch
from support.client_training import (
    DRAWN,
    PERTURBATIONS,
    QUIET_DYNAMO,
    Twin,
    a_model,
    flat,
    in_two_groups,
    named,
    some_batches,
    train,
)
from torch.optim import lr_scheduler

from qsgd_ray.optimizer import SuperpositionalAdamW

pytestmark = QUIET_DYNAMO


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda step: 0.9**step, lambda step: 1 / (1 + step)]),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=8),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.02, 0.01], total_steps=14),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=4), lr_scheduler.ExponentialLR(o, gamma=0.8)], milestones=[4]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.3),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_under_a_scheduler_without_perturbation_it_is_adamw_bit_for_bit(name):
    ends = []
    for make in (lambda *own: SuperpositionalAdamW(*own, lambda_=0.0), torch.optim.AdamW):
        model = a_model(torch.float32)
        optimizer = make(in_two_groups(model, lr=3e-3), 1e-2)
        train(model, optimizer, some_batches(12, torch.float32), SCHEDULERS[name](optimizer))
        ends.append((flat(model.parameters()), [(group["lr"], group["betas"]) for group in optimizer.param_groups]))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


@pytest.mark.parametrize("scope", ["tensor", "all"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_under_a_scheduler_the_perturbation_goes_by_its_learning_rate(name, scope):
    model = a_model()
    optimizer = SuperpositionalAdamW(in_two_groups(model, lr=3e-3, lambda_=2.0), lr=1e-2, lambda_=0.7, scope=scope)
    scheduler = SCHEDULERS[name](optimizer)
    twin, rates, betas = Twin(optimizer, scheduler, scope), set(), set()
    for batch in some_batches(12):
        train(model, optimizer, batch[None], scheduler)
        assert twin.distance() < 1e-12
        rates.add(scheduler.get_last_lr()[0])
        betas.add(optimizer.param_groups[0]["betas"])
    assert len(rates) > 2
    assert (len(betas) > 2) == (name == "OneCycleLR")


@pytest.mark.parametrize("scope", ["tensor", "all"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_scheduler_of_a_learning_rate_in_a_tensor_is_followed(scope, fused):
    model, rate = a_model(), torch.tensor(1e-2, dtype=torch.float64)
    optimizer = SuperpositionalAdamW(model.parameters(), lr=rate, lambda_=0.7, scope=scope, fused=fused)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
    twin = Twin(optimizer, scheduler, scope)
    train(model, optimizer, some_batches(6), scheduler)
    assert optimizer.param_groups[0]["lr"] < 3e-3
    assert twin.distance() < 1e-12


@pytest.mark.parametrize("own", [*PERTURBATIONS, *DRAWN], ids=named)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_optimizer_and_scheduler_resume_from_their_states_bit_for_bit(name, own):
    def made(model):
        optimizer = SuperpositionalAdamW(in_two_groups(model), lr=1e-2, **own)
        return optimizer, SCHEDULERS[name](optimizer)

    batches, model = some_batches(10), a_model()
    optimizer, scheduler = made(model)
    train(model, optimizer, batches[:5], scheduler)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    train(model, optimizer, batches[5:], scheduler)
    resumed = a_model(seed=9)
    resumed_optimizer, resumed_scheduler = made(resumed)
    for each, state in zip((resumed, resumed_optimizer, resumed_scheduler), saved, strict=True):
        each.load_state_dict(state)
    train(resumed, resumed_optimizer, batches[5:], resumed_scheduler)
    assert torch.equal(flat(resumed.parameters()), flat(model.parameters()))
