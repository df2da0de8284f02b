"""SuperpositionalAdamW under what torch tests its own optimizers with."""

import copy
import inspect

import pytest
import torch
from support.client_training import (
    KERNELS,
    QUIET_DYNAMO,
    a_model,
    flat,
    in_two_groups,
    named,
    some_batches,
    train,
)

from qsgd_ray.optimizer import SuperpositionalAdamW

pytestmark = QUIET_DYNAMO


@pytest.fixture
def adamw_s():
    """What torch tests its AdamW with."""
    pytest.importorskip("expecttest")  # torch.testing._internal needs it
    from torch.testing._internal.common_optimizers import optim_db

    return next(info for info in optim_db if info.optim_cls is torch.optim.AdamW)


ACCEPTED = set(inspect.signature(SuperpositionalAdamW).parameters)


@pytest.mark.parametrize("kernel", KERNELS, ids=named)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_of_torch_s_own_inputs_it_makes_what_adamw_makes_bit_for_bit(adamw_s, dtype, kernel, subtests):
    inputs = adamw_s.optim_inputs_func(device="cpu")
    assert {own.desc for own in inputs} >= {"default", "non-default lr", "nonzero weight_decay", "maximize"}
    for own in inputs:
        with subtests.test(own.desc):
            ours, theirs = a_model(dtype), a_model(dtype)
            options = {name: value for name, value in own.kwargs.items() if name in ACCEPTED}
            by_group = {name: value for name, value in own.kwargs.items() if name not in ACCEPTED}  # amsgrad
            groups = [{"params": list(ours.parameters()), **by_group}]
            optimizer = SuperpositionalAdamW(groups, **options, **kernel, lambda_=0.0)
            other = torch.optim.AdamW(theirs.parameters(), **own.kwargs, **kernel)
            train(ours, optimizer, some_batches(5, dtype))
            train(theirs, other, some_batches(5, dtype))
            assert torch.equal(flat(ours.parameters()), flat(theirs.parameters()))
            for mine, his in zip(ours.parameters(), theirs.parameters(), strict=True):
                assert optimizer.state[mine].keys() == other.state[his].keys()
                assert all(torch.equal(optimizer.state[mine][name], value) for name, value in other.state[his].items())


@pytest.mark.parametrize("kernel", KERNELS, ids=named)
@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_a_silent_group_with_amsgrad_beside_a_perturbed_one_is_adamw_s_bit_for_bit(kernel, scope):
    models = [a_model(torch.float32) for _ in range(2)]
    optimizers = [
        SuperpositionalAdamW(
            in_two_groups(models[0], amsgrad=True, lambda_=0.0, betas=(0.5, 0.5)), scope=scope, lambda_=2.0, **kernel
        ),
        torch.optim.AdamW(in_two_groups(models[1], amsgrad=True, betas=(0.5, 0.5)), **kernel),
    ]
    for step in range(6):
        for model, optimizer in zip(models, optimizers, strict=True):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.3**step)
            optimizer.step()
    assert not torch.equal(models[0][0].weight, models[1][0].weight)
    assert all(torch.equal(models[0][at].bias, models[1][at].bias) for at in (0, 2))


@pytest.mark.parametrize("kernel", KERNELS, ids=named)
def test_of_a_group_with_amsgrad_the_coordinates_that_it_does_not_perturb_are_adamw_s_bit_for_bit(kernel):
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 9)) for _ in range(2))
    optimizer = SuperpositionalAdamW([{"params": [ours], "amsgrad": True}], lr=1e-2, betas=(0.5, 0.5), **kernel)
    other = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.5, 0.5), amsgrad=True, **kernel)
    for scale in (5.0, 1.0, 0.1, 0.01):
        ours.grad, theirs.grad = scale * torch.ones(9), scale * torch.ones(9)
        optimizer.step()
        other.step()
    assert torch.equal(ours[4:], theirs[4:])
    assert (ours[1:4] != theirs[1:4]).all()


def test_of_torch_s_own_error_inputs_it_raises_what_adamw_raises(adamw_s, subtests):
    errors = adamw_s.optim_error_inputs_func(device="cpu", dtype=torch.float32)
    errors = [error for error in errors if set(error.optimizer_error_input.kwargs) <= ACCEPTED]
    assert len(errors) >= 12
    for error in errors:
        own = error.optimizer_error_input
        for make in (torch.optim.AdamW, SuperpositionalAdamW):
            with subtests.test(f"{make.__name__}: {own.desc}"):
                parameters = [torch.nn.Parameter(torch.randn(1))] if own.params is None else copy.deepcopy(own.params)
                expect = pytest.warns if issubclass(error.error_type, Warning) else pytest.raises
                with expect(error.error_type, match=error.error_regex):
                    make(parameters, **own.kwargs)


def test_fused_with_foreach_is_refused_as_adamw_refuses_it():
    for make in (torch.optim.AdamW, SuperpositionalAdamW):
        with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
            make(a_model().parameters(), foreach=True, fused=True)
