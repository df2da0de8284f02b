"""AdamW's step without torch's ways around its kernel: the same bits, and torch's own wherever it is not for this."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_ray.optimizer._fused_step import FusedStep

SHAPES = ((3, 5), (7,), (1,), (0,), (40, 3))


def a_model(n_tensors, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPES[i % len(SHAPES)], generator=draw).requires_grad_() for i in range(n_tensors)]


def twins(n_tensors, **options):
    """Two optimizers alike, of parameters alike, after a first step that makes their states."""
    pair = []
    for _ in range(2):
        parameters = a_model(n_tensors)
        half = n_tensors // 2
        groups = [{"params": parameters[:half]}, {"params": parameters[half:], "lr": 3e-3, "weight_decay": 0.3}]
        pair.append((parameters, torch.optim.AdamW(groups, fused=True, **options)))
    for parameters, optimizer in pair:
        gradients(parameters, 0)
        optimizer.step()
    return pair


def gradients(parameters, seed):
    draw = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=draw)


def same(one, other):
    (parameters, optimizer), (others, by_torch) = one, other
    for mine, its in zip(parameters, others, strict=True):
        assert torch.equal(mine, its)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[mine][name], by_torch.state[its][name])
    return True


@settings(deadline=None, max_examples=15)
@given(
    n_tensors=st.integers(2, 40),
    maximize=st.booleans(),
    betas=st.sampled_from([(0.9, 0.999), (0.0, 0.5)]),
    steps=st.integers(1, 6),
)
def test_the_bits_are_torchs(n_tensors, maximize, betas, steps):
    mine, its = twins(n_tensors, maximize=maximize, betas=betas)
    fused_step = FusedStep()
    for number in range(1, 1 + steps):
        for parameters, optimizer in (mine, its):
            gradients(parameters, number)
            optimizer.param_groups[0]["lr"] = 1e-3 / number
        assert fused_step.take(mine[1], True)
        its[1].step()
    assert same(mine, its)


def loaded(parameters, optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def moved_counts(parameters, optimizer):
    for parameter in parameters:
        optimizer.state[parameter]["step"].data = optimizer.state[parameter]["step"].clone()


def another_moment(parameters, optimizer):
    optimizer.state[parameters[-1]]["exp_avg"] = torch.ones_like(parameters[-1])


def other_order(parameters, optimizer):
    optimizer.param_groups[0]["params"].reverse()


@pytest.mark.parametrize("change", [loaded, moved_counts, another_moment, other_order])
def test_what_is_kept_is_made_anew_where_it_is_another(change):
    mine, its = twins(36)
    fused_step = FusedStep()
    for number in range(1, 4):
        for parameters, optimizer in (mine, its):
            gradients(parameters, number)
            if number == 2:
                change(parameters, optimizer)
        assert fused_step.take(mine[1], True)
        its[1].step()
    assert same(mine, its)


@pytest.mark.parametrize(
    "change",
    [
        lambda ps, o: o.param_groups[1].update(amsgrad=True),
        lambda ps, o: o.param_groups[0].update(fused=None),
        lambda ps, o: o.param_groups[0].update(lr=torch.tensor(1e-3)),
        lambda ps, o: o.param_groups[0].update(capturable=True),
        lambda ps, o: setattr(o, "grad_scale", torch.tensor(2.0)),
        lambda ps, o: setattr(ps[3], "grad", None),
        lambda ps, o: o.state.pop(ps[0]),
        lambda ps, o: o.state[ps[0]].update(exp_avg=torch.ones(5, 3).t()),
    ],
    ids=["amsgrad", "not-fused", "lr-tensor", "capturable", "scaled", "no-gradient", "no-state", "strided-moment"],
)
def test_torch_takes_what_is_not_for_this_and_nothing_is_touched(change):
    mine, _ = twins(20)
    fused_step = FusedStep()
    gradients(mine[0], 1)
    change(*mine)
    before = [parameter.detach().clone() for parameter in mine[0]]
    assert not fused_step.take(mine[1], True)
    assert all(torch.equal(parameter, was) for parameter, was in zip(mine[0], before, strict=True))
    assert all(own["step"] == 1 for own in mine[1].state.values())


def test_gradients_that_do_not_fit_are_torchs():
    mine, _ = twins(20)
    gradients(mine[0], 1)
    assert not FusedStep().take(mine[1], False)
