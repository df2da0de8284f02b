import copy
import io
import math
from unittest import mock

import numpy as np
import pytest
import reference_circuits as reference
import torch
from fakes import CountingBackend, FlakyBackend, LateBackend
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import flat

from qsgd_ray.circuits.backends import CircuitError
from qsgd_ray.config import Arm, LogUniform, Perturbation, StudyError
from qsgd_ray.optimizer import SuperpositionalAdamW, make_optimizer
from qsgd_ray.optimizer.adamw import STEPS

SHAPES = ((3, 4), (5,), (2, 1), (1,))
KERNELS = ({"fused": True}, {"foreach": True}, {"foreach": False})


def parameters_of(shapes=SHAPES, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes
    ]


def set_gradients(parameters, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for parameter in parameters:
        # It depends on theta, so a difference in theta shows again; boundedly, so that rounding does not grow.
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        parameter.grad = noise * (1 + parameter.detach().tanh())


def run(optimizer, parameters, steps, first=0):
    for step in range(first, first + steps):
        set_gradients(parameters, step)
        optimizer.step()
    return flat(parameters)


def twin_of(parameters, signal, scope, n_qubits=4, lr=1e-2, lambda_=0.5, weight_decay=0.0, eps=1e-8, **options):
    sizes = [parameter.numel() for parameter in parameters]
    blocks = reference.blocks_of(sizes, scope, n_qubits)
    return reference.AdamWWithSignal(
        flat(parameters).numpy(), lr, 0.9, 0.999, eps, weight_decay, lambda_, blocks, signal, **options
    )


# Parameters of several dtypes


@pytest.mark.parametrize("placement", ["update", "moments"])
@pytest.mark.parametrize("source", ["sine", "circuit"])
def test_a_parameters_bits_do_not_depend_on_the_dtype_of_the_others(source, placement):
    options = {"source": source, "placement": placement, "lr": 1e-2, "lambda_": 5.0}
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        one = torch.randn(7, generator=generator).bfloat16()
        gradient = torch.randn(7, generator=generator).bfloat16()
        other = torch.randn(3, generator=generator)

        def stepped(*parameters, gradient=gradient):
            made = [torch.nn.Parameter(parameter.clone()) for parameter in parameters]
            made[0].grad = gradient.clone()
            for rest in made[1:]:
                rest.grad = torch.ones_like(rest)
            SuperpositionalAdamW(made, **options).step()
            return made[0].detach()

        assert torch.equal(stepped(one), stepped(one, other)), seed


# Against torch.optim


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("off", [{"lambda_": 0.0, "source": "circuit"}, {"lambda_": 0.0}, {"source": "zero"}])
def test_without_perturbation_it_is_adamw_bit_for_bit(kernel, maximize, off):
    shared = {"lr": 1e-2, "weight_decay": 0.05, "maximize": maximize, **kernel}
    ours, theirs = parameters_of(dtype=torch.float32), parameters_of(dtype=torch.float32)
    backend = CountingBackend() if off.get("source") == "circuit" else None
    optimizer = SuperpositionalAdamW(ours, **shared, **off, scope="all", circuits=backend)
    other = torch.optim.AdamW(theirs, **shared)
    assert torch.equal(run(optimizer, ours, 200), run(other, theirs, 200))
    for mine, his in zip(ours, theirs, strict=True):
        assert optimizer.state[mine].keys() == other.state[his].keys()
        assert all(torch.equal(optimizer.state[mine][name], other.state[his][name]) for name in other.state[his])
    assert backend is None or backend.asked == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_untouched_coordinates_are_adamw_s_bit_for_bit(kernel):
    ours, theirs = parameters_of(((7,), (6,))), parameters_of(((7,), (6,)))
    ours_optimizer = SuperpositionalAdamW(ours, weight_decay=0.1, scope="model", n_qubits=3, **kernel)
    theirs_optimizer = torch.optim.AdamW(theirs, weight_decay=0.1, **kernel)
    for step in range(50):
        for parameters, optimizer in ((ours, ours_optimizer), (theirs, theirs_optimizer)):
            for parameter in parameters:
                parameter.grad = torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64
                )
            optimizer.step()
    assert torch.equal(flat(ours)[3:], flat(theirs)[3:])
    assert (flat(ours)[:3] != flat(theirs)[:3]).all()


# Against the naive twin


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
    with mock.patch("qsgd_ray.optimizer.by_runs.CHUNK", chunk):
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
            told = optimizer.telemetry()
            assert math.isclose(told.perturbation_norm, np.linalg.norm(twin.perturbation), rel_tol=1e-9, abs_tol=1e-12)
            assert math.isclose(told.adam_step_norm, np.linalg.norm(twin.adam_step), rel_tol=1e-9)
            (group,) = told.groups
            assert group[:2] == pytest.approx(told[:2])


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
    assert {len(angles) for _, angles in backend.asked} == {1}
    optimizer.param_groups[0]["lambda_"] = 1.0
    run(optimizer, [first, second], 2)
    assert len(backend.asked[-1][1]) == 2


def test_a_learning_rate_of_zero_changes_no_bit():
    parameters = parameters_of()
    before = flat(parameters)
    assert torch.equal(run(SuperpositionalAdamW(parameters, lr=0.0), parameters, 3), before)


# Which parameters


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
    assert len(backend.asked) == 1  # a step ahead, and theta has not moved since
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


# Prefetch: exact, never stale


class Straight:
    """The same optimizer, made to forget what it asked ahead."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer._prefetch.forget()
        self.optimizer.step()


@pytest.mark.parametrize("scope", ["model", "tensor", "all"])
def test_prefetch_changes_no_bit(scope):
    ahead, straight = parameters_of(), parameters_of()
    prefetching = SuperpositionalAdamW(ahead, source="circuit", scope=scope, circuits=LateBackend())
    direct = Straight(SuperpositionalAdamW(straight, source="circuit", scope=scope))
    assert torch.equal(run(prefetching, ahead, 6), run(direct, straight, 6))


def test_prefetch_asks_each_circuit_once():
    backend = LateBackend()
    parameters = parameters_of(((4,), (6,)))
    optimizer = SuperpositionalAdamW(parameters, source="circuit", circuits=backend)
    run(optimizer, parameters, 5)
    assert backend.submissions == 6  # the first step's, and after each step the next one's
    assert optimizer.telemetry().n_circuits == 12


def edit_in_place(parameters, _):
    with torch.no_grad():
        parameters[0].mul_(1.5)


def edit_data(parameters, _):
    parameters[1].data[0] = 0.123


def edit_one_ulp(parameters, _):
    parameters[0].data.view(-1)[0] = torch.nextafter(parameters[0].data.view(-1)[0], torch.tensor(9.0).double())


def replace_memory(parameters, _):
    parameters[1].data = torch.full_like(parameters[1].data, 0.3)


def reload_state(_, optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


@pytest.mark.parametrize("edit", [edit_in_place, edit_data, edit_one_ulp, replace_memory, reload_state])
def test_parameters_edited_between_steps_are_never_met_with_a_stale_signal(edit):
    ahead, straight = parameters_of(), parameters_of()
    prefetching = SuperpositionalAdamW(ahead, source="circuit", circuits=LateBackend())
    direct = Straight(SuperpositionalAdamW(straight, source="circuit"))
    for step in range(5):
        if step in (2, 3):
            edit(ahead, prefetching)
            edit(straight, direct.optimizer)
        run(prefetching, ahead, 1, step)
        run(direct, straight, 1, step)
        assert torch.equal(flat(ahead), flat(straight))


def test_load_state_dict_discards_what_was_asked_ahead():
    parameters = parameters_of()
    optimizer = SuperpositionalAdamW(parameters, source="circuit", circuits=LateBackend())
    run(optimizer, parameters, 1)
    assert optimizer._prefetch._asked
    optimizer.load_state_dict(optimizer.state_dict())
    assert not optimizer._prefetch._asked


def test_a_prefetch_that_fails_is_asked_again_and_only_then_raises():
    def trained(backend, steps):
        parameters = parameters_of(((4,),))
        return run(SuperpositionalAdamW(parameters, source="circuit", circuits=backend), parameters, steps)

    assert torch.equal(trained(FlakyBackend(fail_on=3), 5), trained(FlakyBackend(fail_on=99), 5))
    with pytest.raises(CircuitError, match="submission 1 failed"):
        trained(FlakyBackend(fail_on=1), 1)
    with pytest.raises(CircuitError, match="submission 2 failed"):
        trained(FlakyBackend(fail_on=2, at="result"), 2)


def test_a_diverged_parameter_is_nan_and_not_an_error():
    parameters = parameters_of(((4,), (4,)))
    optimizer = SuperpositionalAdamW(parameters, source="circuit")
    set_gradients(parameters, 0)
    parameters[0].grad[1] = math.nan
    optimizer.step()
    run(optimizer, parameters, 2)
    assert parameters[0].isnan().any()
    assert parameters[1].isfinite().all()


# State


@pytest.mark.parametrize("source", ["sine", "circuit"])
def test_state_dict_is_adamw_s_and_resumes_bit_for_bit(source):
    parameters, plain = parameters_of(), parameters_of()
    optimizer, adamw = SuperpositionalAdamW(parameters, source=source), torch.optim.AdamW(plain)
    run(optimizer, parameters, 3)
    run(adamw, plain, 3)
    saved = optimizer.state_dict()
    assert saved["state"].keys() == adamw.state_dict()["state"].keys()
    assert saved["param_groups"][0].keys() - adamw.state_dict()["param_groups"][0].keys() == {"lambda_", STEPS}
    file = io.BytesIO()
    torch.save((saved, [parameter.detach() for parameter in parameters]), file)
    file.seek(0)
    loaded, values = torch.load(file)
    resumed = [torch.nn.Parameter(value) for value in values]
    other = SuperpositionalAdamW(resumed, source=source, lambda_=9.0)
    other.load_state_dict(loaded)
    assert torch.equal(run(optimizer, parameters, 4, 3), run(other, resumed, 4, 3))


def test_a_plain_adamw_state_dict_loads_and_keeps_lambda():
    plain, parameters = parameters_of(), parameters_of()
    adamw = torch.optim.AdamW(plain)
    run(adamw, plain, 2)
    optimizer = SuperpositionalAdamW(parameters, lambda_=0.3)
    optimizer.load_state_dict(adamw.state_dict())
    assert optimizer.param_groups[0]["lambda_"] == 0.3
    run(optimizer, parameters, 1)


@pytest.mark.parametrize("source", ["sine", "circuit"])
def test_a_deep_copy_with_circuits_under_way_goes_on_alone_bit_for_bit(source):
    parameters = parameters_of()
    optimizer = SuperpositionalAdamW(parameters, source=source, circuits=LateBackend())
    run(optimizer, parameters, 2)
    copied_parameters, copied = copy.deepcopy((parameters, optimizer))
    theirs = run(copied, copied_parameters, 3, 2)
    assert not torch.equal(theirs, flat(parameters))
    assert torch.equal(run(optimizer, parameters, 3, 2), theirs)


def test_a_pickled_optimizer_with_circuits_under_way_goes_on_bit_for_bit():
    parameters = parameters_of()
    optimizer = SuperpositionalAdamW(parameters, source="circuit", circuits=LateBackend())
    run(optimizer, parameters, 2)
    file = io.BytesIO()
    torch.save((parameters, optimizer), file)
    file.seek(0)
    loaded_parameters, loaded = torch.load(file, weights_only=False)
    assert torch.equal(run(loaded, loaded_parameters, 3, 2), run(optimizer, parameters, 3, 2))


# As an optimizer


def test_runs_repeat_bit_for_bit():
    def once():
        parameters = parameters_of(dtype=torch.float32)
        return run(SuperpositionalAdamW(parameters, source="circuit", scope="all"), parameters, 20)

    assert torch.equal(once(), once())


@pytest.mark.parametrize("source", ["sine", "circuit"])
def test_it_finds_the_minimum_of_a_quadratic(source):
    target = torch.tensor([0.3, -0.2, 0.7, 0.1, -0.5])
    parameter = torch.nn.Parameter(torch.zeros(5))
    optimizer = SuperpositionalAdamW([parameter], lr=2e-2, weight_decay=0.0, source=source)
    for _ in range(400):
        optimizer.zero_grad()
        (parameter - target).square().sum().backward()
        optimizer.step()
    assert (parameter - target).abs().max() < 1e-2


def test_a_closure_is_called_once_and_its_loss_returned():
    parameters, other = parameters_of(((4,),)), parameters_of(((4,),))
    calls = []

    def closure():
        calls.append(torch.is_grad_enabled())
        parameters[0].grad = None
        loss = parameters[0].square().sum()
        loss.backward()
        return loss

    optimizer = SuperpositionalAdamW(parameters)
    assert torch.equal(optimizer.step(closure), other[0].square().sum())
    assert calls == [True]
    other[0].square().sum().backward()
    SuperpositionalAdamW(other).step()
    assert torch.equal(flat(parameters), flat(other))


def test_hooks_run_once_a_step():
    plain = parameters_of()
    torch.optim.AdamW(plain)  # torch wraps AdamW.step when the first one is made
    parameters, calls = parameters_of(), []
    optimizer = SuperpositionalAdamW(parameters)
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    run(optimizer, parameters, 2)
    assert calls == ["pre", "post"] * 2


def test_a_gradient_scaler_does_not_scale_the_perturbation():
    scaled, plain = parameters_of(((4,),), dtype=torch.float32), parameters_of(((4,),), dtype=torch.float32)
    optimizer, other = (SuperpositionalAdamW(own, fused=True, lambda_=5.0) for own in (scaled, plain))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        for own in (scaled, plain):
            own[0].grad = None
        scaler.scale(scaled[0].square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        plain[0].square().sum().backward()
        other.step()
    assert torch.equal(flat(scaled), flat(plain))


# Telemetry


def test_telemetry_means_the_sampled_steps_and_starts_afresh():
    parameters = parameters_of()
    twin = twin_of(parameters, reference.sine_signal, "tensor")
    optimizer = SuperpositionalAdamW(parameters, lr=1e-2, weight_decay=0.0, telemetry_every=3)
    assert optimizer.telemetry() == (None, None, 0.0, 0.0, 0, 0, ())
    norms = []
    for step in range(7):
        set_gradients(parameters, step)
        twin.step(torch.cat([parameter.grad.reshape(-1) for parameter in parameters]).numpy())
        optimizer.step()
        norms.append((np.linalg.norm(twin.perturbation), np.linalg.norm(twin.adam_step)))
    told = optimizer.telemetry()
    assert told.n_samples == 2
    assert math.isclose(told.perturbation_norm, (norms[2][0] + norms[5][0]) / 2, rel_tol=1e-10)
    assert math.isclose(told.adam_step_norm, (norms[2][1] + norms[5][1]) / 2, rel_tol=1e-10)
    assert optimizer.telemetry()[:2] == (None, None)


def test_telemetry_can_be_off():
    parameters = parameters_of()
    optimizer = SuperpositionalAdamW(parameters, telemetry_every=None)
    run(optimizer, parameters, 20)
    assert optimizer.telemetry().n_samples == 0


def test_waiting_for_circuits_is_counted_in_seconds():
    parameters = parameters_of(((4,),))
    optimizer = SuperpositionalAdamW(parameters, source="circuit", circuits=LateBackend(delay_s=0.02))
    run(optimizer, parameters, 3)
    first = optimizer.telemetry()
    assert 0.06 <= first.circuit_wait_s < 5
    assert first.n_circuits == 4
    assert optimizer.telemetry().circuit_wait_s == first.circuit_wait_s


# Refusals


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"lambda_": -1.0}, r"^Perturbation.lambda_: got -1.0; allowed: a number >= 0"),
        ({"n_qubits": 0}, r"^Perturbation.n_qubits: got 0; allowed: a whole number from 1"),
        ({"depth": 0}, r"^Perturbation.depth: got 0"),
        ({"source": "noise"}, r"^Perturbation.source: got 'noise'"),
        ({"scope": "layer"}, r"^Perturbation.scope: got 'layer'"),
        ({"telemetry_every": 0}, r"^telemetry_every: got 0; allowed: a whole number >= 1, or None$"),
        *(
            ({"capturable": True, "source": source}, r"^capturable: got True; allowed: with the sources sine, gradient")
            for source in ("random_sign", "shuffled", "circuit")
        ),
        ({"differentiable": True}, r"^differentiable: got True; allowed: False$"),
        (
            {"amsgrad": True, "formula": "paper"},
            r"^amsgrad: got True; allowed: with direction gradient and formula adamw",
        ),
        ({"amsgrad": True, "direction": "preconditioned"}, r"^amsgrad: got True; allowed: with direction gradient"),
        ({"lambda_": LogUniform(low=0.1, high=1)}, r"^Perturbation.lambda_: got a space; allowed: a value$"),
    ],
)
def test_bad_options_are_refused_in_one_line(bad, told):
    with pytest.raises(ValueError, match=told) as error:
        SuperpositionalAdamW(parameters_of(), **bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
def test_a_bad_lambda_of_a_group_is_refused(bad):
    with pytest.raises(ValueError, match=r"^lambda_: got .*; allowed: a number >= 0$"):
        SuperpositionalAdamW([{"params": parameters_of(), "lambda_": bad}])


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_sparse_gradients_are_refused_before_anything_moves(lambda_):
    parameters = parameters_of(((4,), (3, 2)))
    optimizer = SuperpositionalAdamW(parameters, lambda_=lambda_)
    before = flat(parameters)
    parameters[0].grad = torch.ones(4).double()
    parameters[1].grad = torch.ones(3, 2).double().to_sparse()
    with pytest.raises(ValueError, match=r"^gradient of shape \(3, 2\): got a sparse one; allowed: dense$"):
        optimizer.step()
    assert torch.equal(flat(parameters), before)


def test_parameters_that_are_not_contiguous_are_refused():
    with pytest.raises(ValueError, match="allowed: contiguous parameters"):
        SuperpositionalAdamW([torch.nn.Parameter(torch.zeros(3, 2).t())])


# Arms


def test_an_arm_without_a_perturbation_is_torch_s_adamw():
    arm = Arm(name="adam", learning_rate=3e-3, weight_decay=0.2, betas=(0.8, 0.9), eps=1e-6)
    optimizer = make_optimizer(arm, parameters_of(), None)
    assert type(optimizer) is torch.optim.AdamW
    assert [optimizer.defaults[name] for name in ("lr", "weight_decay", "betas", "eps")] == [
        3e-3,
        0.2,
        (0.8, 0.9),
        1e-6,
    ]


def test_an_arm_s_perturbation_is_handed_on_and_shares_the_base_s_kernel():
    own = Perturbation(source="circuit", lambda_=0.25, n_qubits=2, depth=3, entangle=False, scope="all")
    arm = Arm(name="circuit", learning_rate=3e-3, perturbation=own)
    backend, parameters = CountingBackend(), parameters_of(((5,),))
    optimizer = make_optimizer(arm, parameters, backend)
    run(optimizer, parameters, 1)
    assert {(spec.n_qubits, spec.depth, spec.entangle) for spec, _ in backend.asked} == {(2, 3, "none"), (1, 3, "none")}
    assert (optimizer.defaults["lr"], optimizer.defaults["lambda_"]) == (3e-3, 0.25)
    plain = make_optimizer(Arm(name="adam"), parameters_of(), None)
    assert [optimizer.defaults[name] for name in ("fused", "foreach")] == [
        plain.defaults[name] for name in ("fused", "foreach")
    ]


def test_an_arm_with_an_open_space_is_refused():
    arm = Arm(name="wide", learning_rate=LogUniform(low=1e-4, high=1e-2))
    with pytest.raises(StudyError, match=r"^arm wide: got a space in learning_rate; allowed: a resolved arm$"):
        make_optimizer(arm, parameters_of(), None)
