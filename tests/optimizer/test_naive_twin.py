"""Every reading of the paper against its naive twin, coordinate by coordinate."""

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference_optimizer as reference
from support.fake_backends import CountingBackend
from support.optimizers import KERNELS, flat, parameters_of, run, set_gradients, twin_of

from qsgd_ray.optimizer import SuperpositionalAdamW

SIGNALS = {
    "sine": lambda _: reference.sine_signal,
    "gradient": lambda _: reference.gradient_signal,
    "random_sign": reference.random_sign_signal,
    "shuffled": reference.shuffled_signal,
}


@settings(deadline=None, max_examples=200)
@given(
    source=st.sampled_from(list(SIGNALS)),
    scope=st.sampled_from(["model", "tensor", "all"]),
    formula=st.sampled_from(["adamw", "paper"]),
    placement=st.sampled_from(["update", "moments"]),
    direction=st.sampled_from(["gradient", "preconditioned"]),
    lambda_=st.floats(0, 5),  # lr * lambda * pi * g well below 1: the map does not amplify rounding
    n_qubits=st.integers(1, 6),
    weight_decay=st.floats(0, 0.5),
    kernel=st.sampled_from(KERNELS),
    maximize=st.booleans(),
    chunk=st.sampled_from([1, 5, 2**19]),
    seed=st.integers(0, 1000),
)
def test_closed_forms_are_the_naive_twin_s(
    source, scope, formula, placement, direction, lambda_, n_qubits, weight_decay, kernel, maximize, chunk, seed
):
    parameters = parameters_of(seed=seed)
    options = {"formula": formula, "placement": placement, "direction": direction}
    twin = twin_of(
        parameters,
        SIGNALS[source](seed),
        scope,
        n_qubits,
        1e-3,
        lambda_,
        weight_decay,
        eps=1e-3,  # where v is near 0 the direction amplifies rounding by 1 / eps
        draws=source in ("random_sign", "shuffled"),
        **options,
    )
    with mock.patch("qsgd_ray.optimizer._chunked_step.CHUNK", chunk):
        optimizer = SuperpositionalAdamW(
            parameters,
            lr=1e-3,
            eps=1e-3,
            weight_decay=weight_decay,
            source=source,
            lambda_=lambda_,
            n_qubits=n_qubits,
            scope=scope,
            maximize=maximize,
            seed=seed,
            telemetry_every=1,
            **options,
            **kernel,
        )
        for step in range(6):
            set_gradients(parameters, step)
            before = [parameter.grad.clone() for parameter in parameters]
            gradient = torch.cat([parameter.grad.reshape(-1) for parameter in parameters]).numpy()
            optimizer.step()
            assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(parameters, before, strict=True))
            twin.step(-gradient if maximize else gradient)
            assert np.abs(flat(parameters).numpy() - twin.theta).max() < 1e-12
            telemetry = optimizer.telemetry()
            assert math.isclose(
                telemetry.perturbation_norm, np.linalg.norm(twin.perturbation), rel_tol=1e-9, abs_tol=1e-12
            )
            assert math.isclose(telemetry.adam_step_norm, np.linalg.norm(twin.adam_step), rel_tol=1e-9)
            (group,) = telemetry.groups
            assert group[:2] == pytest.approx(telemetry[:2])


@pytest.mark.parametrize("scope", ["model", "tensor", "all"])
@pytest.mark.parametrize("entangle", ["chain", "ring", "none"])
def test_circuits_are_the_naive_twin_s(scope, entangle):
    parameters = parameters_of()
    twin = twin_of(parameters, reference.circuit_signal(2, entangle), scope, weight_decay=0.1)
    optimizer = SuperpositionalAdamW(
        parameters, lr=1e-2, weight_decay=0.1, source="circuit", entangle=entangle, scope=scope
    )
    for step in range(5):
        set_gradients(parameters, step)
        gradient = torch.cat([parameter.grad.reshape(-1) for parameter in parameters]).numpy()
        optimizer.step()
        twin.step(gradient)
    assert np.abs(flat(parameters).numpy() - twin.theta).max() < 1e-12


def test_lr_lambda_and_weight_decay_go_by_group():
    first, second, third = parameters_of(((3,), (4,), (5,)))
    optimizer = SuperpositionalAdamW(
        [
            {"params": [first], "lr": 1e-2, "lambda_": 2.0},
            {"params": [second], "weight_decay": 0.3, "lambda_": 0.0},
            {"params": [third]},
        ],
        lr=5e-3,
        weight_decay=0.0,
        lambda_=0.7,
    )
    twins = [
        twin_of([first], reference.sine_signal, "tensor", lr=1e-2, lambda_=2.0),
        twin_of([second], reference.sine_signal, "tensor", lr=5e-3, lambda_=0.0, weight_decay=0.3),
        twin_of([third], reference.sine_signal, "tensor", lr=5e-3, lambda_=0.7),
    ]
    for step in range(6):
        if step == 3:  # a scheduler's work
            optimizer.param_groups[0]["lr"] = twins[0].lr = 3e-3
        set_gradients([first, second, third], step)
        for parameter, twin in zip((first, second, third), twins, strict=True):
            twin.step(parameter.grad.numpy())
        optimizer.step()
    for parameter, twin in zip((first, second, third), twins, strict=True):
        assert np.abs(parameter.detach().numpy() - twin.theta).max() < 1e-12


def test_a_group_whose_lambda_is_zero_asks_no_circuits_of_its_own_tensors():
    backend = CountingBackend()
    first, second = parameters_of(((4,), (4,)))
    optimizer = SuperpositionalAdamW(
        [{"params": [first], "lambda_": 0.0}, {"params": [second]}], source="circuit", circuits=backend
    )
    run(optimizer, [first, second], 2)
    assert {len(angles) for _, angles in backend.submitted} == {1}
    optimizer.param_groups[0]["lambda_"] = 1.0
    run(optimizer, [first, second], 2)
    assert len(backend.submitted[-1][1]) == 2


def test_a_learning_rate_of_zero_changes_no_bit():
    parameters = parameters_of()
    before = flat(parameters)
    assert torch.equal(run(SuperpositionalAdamW(parameters, lr=0.0), parameters, 3), before)
