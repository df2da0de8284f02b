"""Frozen, unused, tied, moved, narrow and added parameters."""

import numpy as np
import pytest
import torch
from support import reference_optimizer as reference
from support.client_training import (
    SINES,
    Twin,
    a_model,
    loss_of,
    named,
    some_batches,
)
from support.fake_backends import CountingBackend
from support.optimizers import flat, parameters_of, run, set_gradients, twin_of

from qsgd_ray.optimizer import SuperpositionalAdamW


def test_parameters_without_a_gradient_or_frozen_are_left_alone():
    first, second, third = parameters_of(((3,), (3,), (3,)))
    second.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in (first, second, third)]
    optimizer = SuperpositionalAdamW([first, second, third], scope="all", n_qubits=2, source="circuit")
    for _ in range(3):
        first.grad = torch.ones_like(first)
        optimizer.step()
    assert not torch.equal(first, before[0])
    assert torch.equal(second, before[1])
    assert torch.equal(third, before[2])


def test_a_step_without_any_gradient_asks_nothing_anew():
    backend = CountingBackend()
    optimizer = SuperpositionalAdamW(parameters_of(((4,),)), source="circuit", circuits=backend, telemetry_every=1)
    optimizer.step()
    optimizer.step()
    assert len(backend.submitted) == 1  # a step ahead, and theta has not moved since
    assert optimizer.telemetry()[:2] == (0.0, 0.0)


def test_a_parameter_frozen_and_thawed_between_steps_is_followed():
    parameters = parameters_of(((4,), (4,)))
    twin = twin_of(parameters, reference.sine_signal, "tensor")
    optimizer = SuperpositionalAdamW(parameters, lr=1e-2, weight_decay=0.0)
    parameters[0].requires_grad_(False)
    parameters[0].grad = None
    optimizer.step()
    parameters[0].requires_grad_(True)
    set_gradients(parameters, 0)
    twin.step(np.concatenate([parameter.grad.numpy() for parameter in parameters]))
    optimizer.step()
    assert np.abs(flat(parameters).numpy() - twin.theta).max() < 1e-12


def test_a_parameter_whose_memory_moved_is_followed():
    parameters = parameters_of(((4,),))
    other = parameters_of(((4,),))
    optimizer, untouched = SuperpositionalAdamW(parameters), SuperpositionalAdamW(other)
    run(optimizer, parameters, 2)
    parameters[0].data = parameters[0].data.clone()
    run(untouched, other, 2)
    assert torch.equal(run(optimizer, parameters, 2, 2), run(untouched, other, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_parameters_stay_narrow_and_near(dtype):
    parameters, wide = parameters_of(dtype=dtype), parameters_of()
    optimizer = SuperpositionalAdamW(parameters, source="circuit", scope="all")
    narrow = run(optimizer, parameters, 3)
    assert narrow.dtype == dtype
    assert (narrow - run(SuperpositionalAdamW(wide, source="circuit", scope="all"), wide, 3)).abs().max() < 0.02


def test_added_groups_take_part():
    first, second = parameters_of(((4,), (4,)))
    optimizer = SuperpositionalAdamW([first], lr=1e-2, weight_decay=0.0, lambda_=0.7)
    optimizer.add_param_group({"params": [second]})
    twin = twin_of([first, second], reference.sine_signal, "tensor", lambda_=0.7)
    set_gradients([first, second], 0)
    twin.step(torch.cat([first.grad, second.grad]).numpy())
    optimizer.step()
    assert np.abs(flat([first, second]).numpy() - twin.theta).max() < 1e-12


class Tied(torch.nn.Module):
    """One tensor, in at the front and out at the back."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.front, self.back = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False)
        self.back.weight = self.front.weight
        self.double()

    def forward(self, tokens):
        return self.back(self.front(tokens))


@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_a_tensor_tied_into_two_modules_is_perturbed_once(scope):
    model = Tied()
    optimizer = SuperpositionalAdamW(model.parameters(), lr=1e-2, lambda_=2.0, scope=scope)
    twin = Twin(optimizer, scope=scope)
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.arange(6)), torch.arange(6)).backward()
        optimizer.step()
    assert twin.groups[0].theta.size == 24
    assert twin.distance() < 1e-12
    assert model.front.weight is model.back.weight


@pytest.mark.parametrize("own", SINES, ids=named)
def test_frozen_and_unused_parameters_stay_and_the_others_move_as_alone(own):
    whole, alone = a_model(), a_model()
    whole[0].weight.requires_grad_(False)
    whole.unused = torch.nn.Parameter(torch.ones(6, dtype=torch.float64))
    alone[0].weight.requires_grad_(False)
    before = whole[0].weight.clone()
    optimizers = (
        SuperpositionalAdamW(whole.parameters(), lr=1e-2, **own),
        SuperpositionalAdamW(
            [parameter for parameter in alone.parameters() if parameter.requires_grad], lr=1e-2, **own
        ),
    )
    for model, optimizer in zip((whole, alone), optimizers, strict=True):
        for batch in some_batches(4):
            optimizer.zero_grad()
            loss_of(torch.nn.Sequential(*model), batch).backward()
            optimizer.step()
    assert torch.equal(whole[0].weight, before)
    assert torch.equal(whole.unused, torch.ones(6, dtype=torch.float64))
    names = [name for name, _ in alone.named_parameters()]
    assert all(torch.equal(whole.get_parameter(name), alone.get_parameter(name)) for name in names)
