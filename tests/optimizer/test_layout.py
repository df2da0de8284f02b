"""What may change between steps: groups, memory, options. The layout follows, or one line says what is not allowed."""

import copy
import pickle

import pytest
import torch
from support.fake_backends import CountingBackend

from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer._adam import learning_rate
from qsgd_ray.optimizer.schedules import LambdaSchedule

SCOPES = pytest.mark.parametrize("scope", ["model", "tensor", "all"])


def parameter_of(*shape, seed=0):
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def stepped(optimizer, n=1):
    for _ in range(n):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("bad", [-3.0, float("nan"), float("inf")])
def test_a_lambda_that_turns_bad_is_refused_before_anything_moves(bad):
    parameter = parameter_of(4)
    optimizer = SuperpositionalAdamW([parameter])
    stepped(optimizer)
    before = parameter.detach().clone()
    optimizer.param_groups[0]["lambda_"] = bad
    with pytest.raises(ValueError, match=r"^lambda_: got .*; allowed: a number >= 0"):
        stepped(optimizer)
    assert torch.equal(parameter, before)


@pytest.mark.parametrize("option", ["capturable", "differentiable"])
def test_options_are_refused_by_group_too(option):
    with pytest.raises(ValueError, match=f"^{option}: got True; allowed: "):
        SuperpositionalAdamW(
            [{"params": [parameter_of(2)], option: True}], source="circuit", circuits=CountingBackend()
        )


@SCOPES
def test_a_parameter_that_moves_to_another_group_goes_by_its_options(scope):
    def moved(late):
        x, y = parameter_of(3), parameter_of(3, seed=1)
        early, other = ([x], [y]) if not late else ([x, y], [])
        groups = [{"params": early, "lr": 1e-3}, {"params": [*other, parameter_of(2, seed=2)], "lr": 1.0}]
        optimizer = SuperpositionalAdamW(groups, scope=scope)
        if late:
            optimizer.param_groups[1]["params"].insert(0, optimizer.param_groups[0]["params"].pop())
        stepped(optimizer)
        return y.detach()

    assert torch.equal(moved(late=True), moved(late=False))


@SCOPES
def test_a_parameter_that_was_cut_short_in_place_is_followed(scope):
    parameter, other = parameter_of(6), parameter_of(6)
    optimizer = SuperpositionalAdamW([parameter], scope=scope)
    parameter.data = parameter.data[:2]
    expected = torch.nn.Parameter(other.data[:2].clone())
    stepped(optimizer)
    stepped(SuperpositionalAdamW([expected], scope=scope))
    assert torch.equal(parameter, expected)


@SCOPES
@pytest.mark.parametrize("direction", ["gradient", "preconditioned"])
def test_a_state_with_other_strides_goes_on_as_any(scope, direction):
    def weights():
        return torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))

    strided = torch.nn.Parameter(weights().to(memory_format=torch.channels_last))
    theirs = torch.optim.AdamW([strided])
    stepped(theirs, 2)
    results = []
    for state in (theirs.state_dict(), copy.deepcopy(theirs.state_dict())):
        if results:
            state["state"][0] = {name: value.contiguous() for name, value in state["state"][0].items()}
        own = torch.nn.Parameter(weights())
        optimizer = SuperpositionalAdamW([own], scope=scope, direction=direction, telemetry_every=1)
        optimizer.load_state_dict(state)
        stepped(optimizer, 2)
        results.append(own.detach())
    assert torch.equal(*results)


def test_what_the_telemetry_keeps_does_not_grow():
    optimizer = SuperpositionalAdamW([parameter_of(3), parameter_of(2)], telemetry_every=1)
    sizes = []
    for _ in range(3):
        stepped(optimizer, 20)
        sizes.append(len(pickle.dumps(optimizer)))
    assert sizes[1] == sizes[2]
    assert optimizer.telemetry().n_samples == 60


@pytest.mark.parametrize("options", [{"scope": "all"}, {"scope": "tensor"}, {"formula": "paper"}], ids=str)
def test_a_cuda_graph_without_capturable_is_refused_as_torch_refuses_it(monkeypatch, options):
    def refused(self):
        raise RuntimeError("capturable=False")

    optimizer = SuperpositionalAdamW([parameter_of(3)], **options)
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        monkeypatch.setattr(torch.optim.Optimizer, name, refused, raising=False)
    with pytest.raises(RuntimeError, match="capturable=False"):
        stepped(optimizer)


def test_a_schedule_whose_optimizer_got_another_group_says_so_and_moves_nothing():
    optimizer = SuperpositionalAdamW([parameter_of(3)])
    schedule = LambdaSchedule(optimizer, "linear", 10)
    optimizer.add_param_group({"params": [parameter_of(2)]})
    with pytest.raises(ValueError, match="got an optimizer of 2 parameter groups; allowed: the 1 with which it began"):
        schedule.step()
    assert optimizer.param_groups[0]["lambda_"] == 0.5
    assert schedule.steps == 0


def test_a_rate_is_a_number_but_where_a_graph_may_change_it():
    lr = torch.tensor([0.5])
    assert learning_rate({"lr": lr, "capturable": False}) == 0.5
    captured = learning_rate({"lr": lr, "capturable": True})
    assert isinstance(captured, torch.Tensor)
    assert captured.shape == ()
    lr.fill_(0.25)
    assert captured == 0.25


@SCOPES
@pytest.mark.parametrize("formula", ["adamw", "paper"])
def test_a_tensor_as_learning_rate_is_that_number(scope, formula):
    results = []
    for lr in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        parameter = parameter_of(9)
        stepped(SuperpositionalAdamW([parameter], lr=lr, scope=scope, formula=formula), 3)
        results.append(parameter.detach())
    torch.testing.assert_close(*results)


def test_amsgrad_is_the_sixth_argument_as_it_is_of_adamw():
    ours, theirs = parameter_of(5), parameter_of(5)
    stepped(SuperpositionalAdamW([ours], 1e-2, (0.9, 0.99), 1e-8, 0.1, True, lambda_=0.0), 5)
    stepped(torch.optim.AdamW([theirs], 1e-2, (0.9, 0.99), 1e-8, 0.1, True), 5)
    assert torch.equal(ours, theirs)
