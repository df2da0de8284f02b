"""Optimizers of any class, driven: the bits of the class itself, whatever it asks of a training loop."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from qsgd_ray.config import Arm, Groups, LogUniform, Optimizer, Perturbation, StudyError
from qsgd_ray.optimizer import DrivenOptimizer, LambdaSchedule, make_driven_optimizer, make_optimizer
from qsgd_ray.optimizer.driven import _step_kind
from qsgd_ray.optimizer.schedules import RateSchedule, RateShape

OWN = "support.own_optimizers."
pytestmark = pytest.mark.usefixtures("one_thread")

INPUTS = torch.randn(20, 5, generator=torch.Generator().manual_seed(3))
CLASSES = INPUTS[:, :3].argmax(1)


def a_model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def evaluation(model, optimizer):
    def evaluate():
        with torch.enable_grad():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(INPUTS), CLASSES)
            loss.backward()
        return loss.detach()

    return evaluate


def drive(settings, n_steps=5, perturbation=None, seed=0, telemetry_every=32):
    """Return a model that was trained by an arm's optimizer, and the optimizer."""
    model = a_model()
    arm = Arm(name="a", optimizer=settings, perturbation=perturbation)
    optimizer = make_driven_optimizer(arm, model, None, seed, telemetry_every)
    evaluate = evaluation(model, optimizer)
    for _ in range(n_steps):
        optimizer.train()
        if optimizer.kind == "plain":
            evaluate()
            optimizer.step()
        else:
            optimizer.step(evaluate)
        optimizer.eval()
    return model, optimizer


def same_bits(model, other):
    return all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


PLAIN = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "adam": {"lr": 1e-2, "amsgrad": True},
    "adamw": {"lr": 1e-2, "betas": (0.8, 0.99)},
    "nadam": {"lr": 1e-2},
    "radam": {"lr": 1e-2},
    "adafactor": {"lr": 1e-2},
    "rmsprop": {"lr": 1e-2},
    "schedule-free-adamw": {"lr": 1e-2, "warmup_steps": 2},
    "schedule-free-sgd": {"lr": 0.5},
    "lion": {"lr": 1e-3, "cautious": True},
    "soap": {"lr": 1e-2, "precondition_frequency": 2},
    "prodigy": {"lr": 1.0},
    "pytorch_optimizer.ScheduleFreeAdamW": {"lr": 1e-2},
    f"{OWN}Averaging": {"lr": 0.1},
}


def class_named(name):
    from qsgd_ray.config.optimizer_class import _EXTRA, _optimizer_class, module_of

    if module_of(name) in _EXTRA:
        pytest.importorskip(module_of(name))
    return _optimizer_class(name)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_optimizer_takes_the_steps_of_its_class(name):
    cls, keywords = class_named(name), PLAIN[name]
    expected = a_model()
    optimizer = cls(list(expected.parameters()), **keywords)
    evaluate = evaluation(expected, optimizer)
    for _ in range(5):
        if hasattr(optimizer, "train"):
            optimizer.train()
        evaluate()
        optimizer.step()
        if hasattr(optimizer, "eval"):
            optimizer.eval()
    model, driven = drive(Optimizer(name, **keywords))
    assert driven.kind == "plain"
    assert same_bits(model, expected)


@pytest.mark.parametrize("name", ["sam", f"{OWN}Sharpness"])
def test_two_passes_are_the_steps_of_the_class(name):
    cls = class_named(name)
    expected = a_model()
    base = {"lr": 0.1, "momentum": 0.9}
    kwargs = {"base_optimizer": torch.optim.SGD, **base}
    if name != "sam":
        kwargs = {"base_optimizer": lambda groups: torch.optim.SGD(groups, **base)}
    optimizer = cls(list(expected.parameters()), **kwargs)
    evaluate = evaluation(expected, optimizer)
    for _ in range(5):
        evaluate()
        optimizer.step(evaluate)
    model, driven = drive(Optimizer(name, base_optimizer=Optimizer("sgd", **base)))
    assert driven.kind == "two_passes"
    assert same_bits(model, expected)


def test_a_closure_gives_the_steps_of_the_class():
    expected = a_model()
    optimizer = torch.optim.LBFGS(expected.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    for _ in range(3):
        optimizer.step(evaluation(expected, optimizer))
    model, driven = drive(Optimizer("lbfgs", lr=0.5, max_iter=4, line_search_fn="strong_wolfe"), n_steps=3)
    assert driven.kind == "closure"
    assert same_bits(model, expected)


def test_kinds_are_told_by_the_class():
    assert _step_kind(torch.optim.SGD) == "plain"
    assert _step_kind(class_named(f"{OWN}Sharpness")) == "two_passes"


def test_groups_step_each_by_its_own_optimizer():
    expected = a_model()
    matrices, vectors = [expected[0].weight], [expected[0].bias, expected[2].bias]
    optimizers = [
        torch.optim.SGD([expected[2].weight], lr=0.3),
        torch.optim.Muon(matrices, lr=0.02),
        torch.optim.AdamW(vectors, lr=1e-2),
    ]
    for _ in range(5):
        expected.zero_grad()
        F.cross_entropy(expected(INPUTS), CLASSES).backward()
        for optimizer in optimizers:
            optimizer.step()
    groups = Groups(
        head=Optimizer("sgd", lr=0.3, parameters=("2.weight",)),
        matrices=Optimizer("muon", lr=0.02),
        rest=Optimizer("adamw", lr=1e-2),
    )
    model, driven = drive(groups)
    assert same_bits(model, expected)
    assert [group["lr"] for group in driven.param_groups] == [0.3, 0.02, 1e-2]


def test_words_name_embeddings_matrices_and_vectors():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2), nn.Conv1d(1, 1, 2))
    rate = iter((0.1, 0.2, 0.3, 0.4))
    groups = {word: Optimizer("sgd", lr=next(rate)) for word in ("embeddings", "matrices", "vectors", "rest")}
    driven = make_driven_optimizer(Arm(name="a", optimizer=Groups(**groups)), model, None)
    shapes = [[tuple(p.shape) for p in group["params"]] for group in driven.param_groups]
    assert shapes == [[(3, 4)], [(2, 4)], [(2,), (1,)], [(1, 1, 2)]]


SGD, ADAMW = Optimizer("sgd", lr=0.1), Optimizer("adamw", lr=0.1)
REFUSED = {
    "a space": (
        Optimizer("sgd", lr=LogUniform(low=0.1, high=1.0)),
        r"arm a: got a space in optimizer\.lr; allowed: a re",
    ),
    "vectors": (
        Optimizer("muon", lr=0.1),
        r"arms\.a\.optimizer: muon refuses: Muon only supports 2D .*; allowed: Groups\(matrices=Opt",
    ),
    "its own words": (
        Optimizer("sgd", lr=0.1, momentum=-1.0),
        r"arms\.a\.optimizer: sgd refuses: Invalid momentum value",
    ),
    "an empty group": (
        Groups(embeddings=SGD, rest=ADAMW),
        r"arms\.a\.optimizer\.embeddings: got a group without parameters; allowed: one that has some of 0\.weight",
    ),
    "two groups": (
        Groups(
            one=Optimizer("sgd", lr=0.1, parameters=("0.*",)),
            two=Optimizer("sgd", lr=0.1, parameters=("*.weight",)),
            rest=ADAMW,
        ),
        r"arms\.a\.optimizer: got 0\.weight in one and two; allowed: patterns that share no parameter",
    ),
    "a closure beside": (
        Groups(matrices=Optimizer("lbfgs", lr=0.1), rest=ADAMW),
        r"arms\.a\.optimizer: groups: got LBFGS, which evaluates the model itself; allowed: as the only optimizer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_train_a_model_is_refused_in_one_line(case):
    settings, line = REFUSED[case]
    with pytest.raises(StudyError, match=line) as caught:
        make_driven_optimizer(Arm(name="a", optimizer=settings), a_model(), None)
    assert "\n" not in str(caught.value)


def test_a_class_inside_that_is_gone_is_refused_in_one_line():
    settings = Optimizer(f"{OWN}Sharpness", base_optimizer=SGD)
    gone = settings.settings["base_optimizer"].model_copy(update={"name": "gone.Gone"})
    settings = settings.model_copy(update={"base_optimizer": gone})
    with pytest.raises(StudyError, match=r"got 'gone\.Gone'; allowed: a class that is installed"):
        make_driven_optimizer(Arm(name="a", optimizer=SGD).model_copy(update={"optimizer": settings}), a_model(), None)


def test_a_frozen_model_is_refused():
    model = a_model().requires_grad_(False)
    with pytest.raises(
        StudyError, match=r"arms\.a\.optimizer: got a model without trained parameters; allowed: at least"
    ):
        make_driven_optimizer(Arm(name="a", optimizer=SGD), model, None)


def test_the_optimizer_of_adamw_refuses_an_arm_of_another():
    with pytest.raises(StudyError, match=r"arm a: got the optimizer sgd; allowed: make_driven_optimizer"):
        make_optimizer(Arm(name="a", optimizer=SGD), a_model().parameters(), None)


def test_what_an_optimizer_draws_follows_from_seed_and_step_alone():
    def drawn(seed, disturb):
        torch.manual_seed(disturb)
        np.random.seed(disturb)
        random.seed(disturb)
        model, driven = drive(Optimizer(f"{OWN}Drawing", lr=0.1), seed=seed)
        states = driven.optimizers[0].state
        return model, [states[p]["drawn"] for p in model.parameters()]

    (model, draws), (other, _), (third, _) = drawn(1, 5), drawn(1, 6), drawn(2, 5)
    assert same_bits(model, other)
    assert not same_bits(model, third)
    steps = draws[0]
    assert all(not torch.equal(one, two) for one, two in itertools.pairwise(steps))


@pytest.mark.parametrize("name", [f"{OWN}Drawing", "psgd"])
def test_the_generators_of_a_training_stand_as_if_no_optimizer_drew(name):
    class_named(name)
    torch.manual_seed(4)
    np.random.seed(4)
    random.seed(4)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    drive(Optimizer(name, lr=0.1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_an_optimizer_without_switches_is_left_alone():
    model, driven = drive(SGD, n_steps=1)
    driven.train()
    driven.eval()
    assert driven.telemetry().perturbation_norm is None
    assert driven.telemetry_state() is None
    assert isinstance(driven, DrivenOptimizer)
    assert driven.n_steps == 1
    assert len(list(model.parameters())) == 4


@settings(max_examples=50, deadline=None)
@given(
    warmup=st.integers(0, 10),
    total=st.integers(1, 40),
    shape=st.sampled_from(["constant", "linear", "cosine"]),
    first=st.floats(1e-4, 10.0),
    cut=st.integers(0, 39),
)
def test_a_rate_rises_to_its_value_and_falls_to_zero(warmup, total, shape, first, cut):
    def group():
        return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=first).param_groups

    groups, rate_shape = group(), RateShape(min(warmup, total), shape, from_zero=False)
    schedule = RateSchedule(groups, [rate_shape], total)
    rates = []
    resumed = None
    for step in range(total + 1):
        rates.append(groups[0]["lr"])
        if step == min(cut, total):
            resumed = RateSchedule(others := group(), [rate_shape], total)
            resumed.load_state_dict(schedule.state_dict())
        schedule.step()
        if resumed is not None:
            resumed.step()
            assert others[0]["lr"] == groups[0]["lr"]
    assert all(0 <= rate <= first for rate in rates)
    assert all(rate > 0 for rate in rates[:total])
    rising = rates[: rate_shape.warmup_steps]
    assert rising == sorted(rising)
    falling = rates[rate_shape.warmup_steps :]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == first or rate_shape.warmup_steps == total
    assert rates[total] == (first if shape == "constant" else 0.0)


def test_lambda_follows_its_schedule_around_any_optimizer():
    model = a_model()
    arm = Arm(name="a", optimizer=SGD, perturbation=Perturbation(source="sine", lambda_=0.5))
    driven = make_driven_optimizer(arm, model, None)
    schedule = LambdaSchedule(driven, "linear", total_steps=4)
    schedule.step()
    assert driven.param_groups[0]["lambda_"] == 0.375
