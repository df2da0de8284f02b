"""The paper's Q around any optimizer: lr * lambda * Q beside its own step, of theta and gradient before it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qsgd_ray.config import Arm, Groups, Optimizer, Perturbation
from qsgd_ray.optimizer import SuperpositionalAdamW, make_driven_optimizer
from qsgd_ray.optimizer.signals import CircuitSignal, make_signal
from qsgd_ray.random_keys import block_keys

OWN = "support.own_optimizers."
pytestmark = pytest.mark.usefixtures("one_thread")


class Bowl(nn.Module):
    """A function of two tensors, in float64 so that a naive twin is compared closely."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(2, size, dtype=torch.float64, generator=generator))
        self.vector = nn.Parameter(torch.randn(size, dtype=torch.float64, generator=generator))

    def forward(self) -> torch.Tensor:
        return (self.matrix**2).sum() * (self.vector**2).sum() + (self.matrix * self.vector).sum()


def step(model, driven):
    def evaluate():
        with torch.enable_grad():
            driven.zero_grad()
            loss = model()
            loss.backward()
        return loss.detach()

    driven.train()
    if driven.kind == "plain":
        evaluate()
        driven.step()
    else:
        driven.step(evaluate)


def made(settings, perturbation, size=5, seed=1, **options):
    model = Bowl(size, seed)
    arm = Arm(name="a", optimizer=settings, perturbation=perturbation)
    return model, make_driven_optimizer(arm, model, None, 7, **options)


def naive_q(model, perturbation, n_steps):
    """Return Q of each parameter, block by block: s(theta) * g."""
    signal = make_signal(perturbation, None)
    parameters = list(model.parameters())
    thetas = [parameter.detach().flatten().clone() for parameter in parameters]
    gradients = torch.autograd.grad(model(), parameters)
    n, qs, origin = perturbation.n_qubits, [torch.zeros_like(theta) for theta in thetas], 0
    whole = torch.cat(thetas)
    s = torch.zeros_like(whole)
    for theta in thetas:
        stop = min(n, len(theta))
        if perturbation.scope == "tensor":
            keys = block_keys(7, n_steps, torch.tensor([origin]).numpy()) if signal.keyed else None
            s[origin : origin + stop] = signal.submit(theta[None, :stop], keys).result()[0]
        origin += len(theta)
    if perturbation.scope != "tensor":
        for start in range(0, n if perturbation.scope == "model" else len(whole), n):
            block = whole[start : start + n]
            keys = block_keys(7, n_steps, torch.tensor([start]).numpy()) if signal.keyed else None
            s[start : start + len(block)] = signal.submit(block[None], keys).result()[0]
    origin = 0
    for index, gradient in enumerate(gradients):
        size = gradient.numel()
        qs[index] = (s[origin : origin + size] * gradient.flatten()).view_as(gradient)
        origin += size
    return qs


CLASSES = {
    "sgd": Optimizer("sgd", lr=0.01, momentum=0.9),
    "nadam": Optimizer("nadam", lr=0.01),
    "muon": Groups(matrices=Optimizer("muon", lr=0.01), rest=Optimizer("adam", lr=0.02)),
    "lbfgs": Optimizer("lbfgs", lr=0.1, max_iter=3),
    "two passes": Optimizer(f"{OWN}Sharpness", base_optimizer=Optimizer("sgd", lr=0.01)),
    "spoiling": Optimizer(f"{OWN}Spoiling", lr=0.01),
    "upwards": Optimizer("sgd", lr=0.01, maximize=True),
}


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(CLASSES)),
    source=st.sampled_from(["sine", "circuit", "random_sign", "shuffled", "gradient"]),
    scope=st.sampled_from(["model", "tensor", "all"]),
    n_qubits=st.integers(1, 4),
    size=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_a_step_is_the_optimizers_own_and_q_beside_it(name, source, scope, n_qubits, size, seed):
    perturbation = Perturbation(source=source, lambda_=0.5, n_qubits=n_qubits, depth=1, scope=scope)
    model, driven = made(CLASSES[name], perturbation, size, seed)
    twin, alone = made(CLASSES[name], None, size, seed)
    for n_steps in range(2):
        with torch.no_grad():
            for parameter, other in zip(twin.parameters(), model.parameters(), strict=True):
                parameter.copy_(other)
        qs = naive_q(twin, perturbation, n_steps)
        step(model, driven)
        step(twin, alone)
        rates = {id(p): group["lr"] for group in alone.param_groups for p in group["params"]}
        sign = -1 if name == "upwards" else 1
        for parameter, other, q in zip(model.parameters(), twin.parameters(), qs, strict=True):
            expected = other - sign * rates[id(other)] * 0.5 * q
            torch.testing.assert_close(parameter, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(CLASSES)),
    perturbation=st.sampled_from(
        [
            Perturbation(source="sine", lambda_=0.0, scope="all"),
            Perturbation(source="circuit", lambda_=0.0),
            Perturbation(source="zero"),
        ]
    ),
)
def test_without_a_perturbation_it_is_the_optimizer_bit_for_bit(name, perturbation):
    model, driven = made(CLASSES[name], perturbation)
    twin, alone = made(CLASSES[name], None)
    for _ in range(3):
        step(model, driven)
        step(twin, alone)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
    assert driven.telemetry().n_circuits == 0


def test_around_adamw_it_is_the_paper_optimizer():
    perturbation = Perturbation(source="circuit", lambda_=0.7, n_qubits=3)
    model, driven = made(Optimizer("adamw", lr=0.01, weight_decay=0.1), perturbation)
    twin = Bowl(5, 1)
    paper = SuperpositionalAdamW.from_settings(
        twin.parameters(), perturbation, seed=7, lr=0.01, weight_decay=0.1, telemetry_every=None
    )
    for _ in range(5):
        step(model, driven)
        paper.zero_grad()
        twin().backward()
        paper.step()
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-12, atol=1e-12)


def test_both_norms_are_those_of_the_step():
    perturbation = Perturbation(source="gradient", lambda_=0.5, scope="all")
    model, driven = made(Optimizer("sgd", lr=0.01), perturbation, telemetry_every=1)
    gradients = torch.autograd.grad(model(), list(model.parameters()))
    length = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    step(model, driven)
    telemetry = driven.telemetry()
    assert telemetry.adam_step_norm == pytest.approx(length, rel=1e-6)  # of SGD, the gradient
    assert telemetry.perturbation_norm == pytest.approx(0.5 * length, rel=1e-6)
    assert telemetry.n_samples == 1
    assert driven.telemetry().n_samples == 0


def test_a_step_of_rate_zero_is_not_sampled():
    model, driven = made(Optimizer("sgd", lr=0.01), Perturbation(source="sine"), telemetry_every=1)
    driven.param_groups[0]["lr"] = 0.0
    step(model, driven)
    assert driven.telemetry().perturbation_norm is None


def test_circuits_of_the_next_step_are_submitted_ahead():
    assert CircuitSignal  # whose answers the telemetry counts
    model, driven = made(Optimizer("sgd", lr=0.01), Perturbation(source="circuit", n_qubits=2))
    step(model, driven)
    assert driven.telemetry().n_circuits == 4  # two tensors, this step and the next
    state = driven.telemetry_state()
    assert state["under_way"]
    other, resumed = made(Optimizer("sgd", lr=0.01), Perturbation(source="circuit", n_qubits=2))
    with torch.no_grad():
        for parameter, value in zip(other.parameters(), model.parameters(), strict=True):
            parameter.copy_(value)
    resumed.load_telemetry_state(state)
    step(model, driven)
    step(other, resumed)
    assert driven.telemetry().n_circuits == resumed.telemetry().n_circuits == 6
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
