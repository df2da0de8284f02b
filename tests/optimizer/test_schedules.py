import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.optimizer import SuperpositionalAdamW
from qsgd_ray.optimizer.schedules import CONSTANT_RATE, LambdaSchedule, RateShape, _factor

SHAPES = ("constant", "linear", "cosine")


def an_optimizer(**options):
    parameters = [torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]
    groups = [{"params": parameters[:1], "lambda_": 2.0}, {"params": parameters[1:]}]
    return SuperpositionalAdamW(groups, lambda_=0.5, **options)


def run(optimizer, schedule, steps):
    for _ in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = parameter.detach().cos()
        optimizer.step()
        schedule.step()
    return [parameter.detach().clone() for group in optimizer.param_groups for parameter in group["params"]]


@given(st.sampled_from(SHAPES), st.integers(1, 1000), st.integers(0, 2000))
def test_it_falls_from_one_to_nothing_or_stays(shape, total, step):
    assert _factor(shape, 0, total) == 1
    now, then = _factor(shape, step, total), _factor(shape, step + 1, total)
    assert 0 <= then <= now <= 1
    if shape == "constant":
        assert now == 1
    elif step >= total:
        assert now == 0


def test_shapes_are_those_of_their_names():
    assert _factor("linear", 3, 4) == 0.25
    assert math.isclose(_factor("cosine", 1, 4), (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_group_s_lambda_is_multiplied(shape):
    optimizer = an_optimizer()
    schedule = LambdaSchedule(optimizer, shape, 10)
    for step in range(1, 13):
        schedule.step()
        assert [group["lambda_"] for group in optimizer.param_groups] == [
            first * _factor(shape, step, 10) for first in (2.0, 0.5)
        ]


@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_past_its_end_it_is_adamw_and_a_resumed_run_goes_on_bit_for_bit(scope):
    optimizer = an_optimizer(scope=scope)
    schedule = LambdaSchedule(optimizer, "linear", 4)
    expected = run(optimizer, schedule, 6)
    first = an_optimizer(scope=scope)
    first_schedule = LambdaSchedule(first, "linear", 4)
    run(first, first_schedule, 3)
    resumed = an_optimizer(scope=scope)
    for ours, theirs in zip(resumed.param_groups, first.param_groups, strict=True):
        for mine, his in zip(ours["params"], theirs["params"], strict=True):
            mine.data.copy_(his)
    schedule = LambdaSchedule(resumed, "linear", 4)
    resumed.load_state_dict(first.state_dict())
    schedule.load_state_dict(first_schedule.state_dict())
    assert all(map(torch.equal, run(resumed, schedule, 3), expected))


@pytest.mark.parametrize(
    ("shape", "total", "message"),
    [("zap", 3, "schedule: got 'zap'; allowed: constant, linear, cosine"), ("linear", 0, "total_steps: got 0")],
)
def test_bad_schedules_are_refused_in_one_line(shape, total, message):
    with pytest.raises(ValueError, match=message):
        LambdaSchedule(an_optimizer(), shape, total)
    with pytest.raises(ValueError, match="got AdamW without lambda_"):
        LambdaSchedule(torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]), "linear", 3)


@pytest.mark.parametrize(("warmup", "total"), [(0, 5), (2, 7), (5, 5), (9, 4)])
def test_a_learning_rate_with_warm_up_and_linear_decay_is_that_of_transformers(warmup, total):
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = transformers.get_linear_schedule_with_warmup(optimizer, warmup, total)
    for step in range(total + 2):
        assert RateShape(warmup, "linear").factor(step, total) == theirs.get_last_lr()[0]
        optimizer.step()
        theirs.step()


def test_a_constant_learning_rate_stays_after_its_warm_up():
    assert [RateShape(2, "constant").factor(step, 5) for step in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert {CONSTANT_RATE.factor(step, 5) for step in range(6)} == {1.0}
