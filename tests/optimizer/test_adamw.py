"""SuperpositionalAdamW beside torch's optimizers: bits, closures, hooks, telemetry, refusals, arms."""

import math

import numpy as np
import pytest
import torch
from support import reference_optimizer as reference
from support.fake_backends import CountingBackend, LateBackend
from support.optimizers import KERNELS, flat, parameters_of, run, set_gradients, twin_of

from qsgd_ray.config import Arm, LogUniform, Perturbation, StudyError
from qsgd_ray.optimizer import SuperpositionalAdamW, make_optimizer


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
    assert backend is None or backend.submitted == []


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
    telemetry = optimizer.telemetry()
    assert telemetry.n_samples == 2
    assert math.isclose(telemetry.perturbation_norm, (norms[2][0] + norms[5][0]) / 2, rel_tol=1e-10)
    assert math.isclose(telemetry.adam_step_norm, (norms[2][1] + norms[5][1]) / 2, rel_tol=1e-10)
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


@pytest.mark.parametrize(
    ("bad", "message"),
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
def test_bad_options_are_refused_in_one_line(bad, message):
    with pytest.raises(ValueError, match=message) as error:
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
    with pytest.raises(RuntimeError, match=r"^Adam does not support sparse gradients, please consider SparseAdam"):
        optimizer.step()
    assert torch.equal(flat(parameters), before)


def test_parameters_that_are_not_contiguous_are_refused():
    with pytest.raises(ValueError, match="allowed: contiguous parameters"):
        SuperpositionalAdamW([torch.nn.Parameter(torch.zeros(3, 2).t())])


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
    assert {(spec.n_qubits, spec.depth, spec.entangle) for spec, _ in backend.submitted} == {
        (2, 3, "none"),
        (1, 3, "none"),
    }
    assert (optimizer.defaults["lr"], optimizer.defaults["lambda_"]) == (3e-3, 0.25)
    plain = make_optimizer(Arm(name="adam"), parameters_of(), None)
    assert [optimizer.defaults[name] for name in ("fused", "foreach")] == [
        plain.defaults[name] for name in ("fused", "foreach")
    ]


@pytest.mark.parametrize("source", ["shuffled", "circuit"])
def test_a_perturbation_as_one_value_steps_as_its_options_do(source):
    options = {
        "source": source,
        "lambda_": 2.0,
        "n_qubits": 3,
        "depth": 1,
        "scope": "all",
        "direction": "preconditioned",
    }
    adamw = {"lr": 1e-2, "weight_decay": 0.1, "fused": True}
    ours, theirs = parameters_of(), parameters_of()
    from_value = SuperpositionalAdamW.from_settings(ours, Perturbation(**options), seed=3, **adamw)
    assert torch.equal(
        run(from_value, ours, 5), run(SuperpositionalAdamW(theirs, **options, seed=3, **adamw), theirs, 5)
    )
    assert from_value.defaults == SuperpositionalAdamW(theirs, **options, seed=3, **adamw).defaults


def test_a_perturbation_with_an_open_space_is_refused():
    with pytest.raises(ValueError, match=r"^Perturbation.lambda_: got a space; allowed: a value$"):
        SuperpositionalAdamW.from_settings(
            parameters_of(), Perturbation(source="sine", lambda_=LogUniform(low=0.1, high=1))
        )


def test_an_arm_with_an_open_space_is_refused():
    arm = Arm(name="wide", learning_rate=LogUniform(low=1e-4, high=1e-2))
    with pytest.raises(StudyError, match=r"^arm wide: got a space in learning_rate; allowed: a resolved arm$"):
        make_optimizer(arm, parameters_of(), None)
