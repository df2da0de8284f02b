"""SuperpositionalAdamW under clients that nobody here wrote: schedulers, trainers, scalers, compilers, torch's own
optimizer checks."""

import copy
import inspect

import numpy as np
import pytest
import reference_circuits as reference
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import lr_scheduler

from qsgd_ray.optimizer import SuperpositionalAdamW

# Dynamo's import; of torch, not of what it compiles.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
SINES = ({"scope": "tensor"}, {"scope": "all"})
PERTURBATIONS = (*SINES, {"source": "circuit"})
DRAWN = ({"source": "random_sign", "scope": "all"}, {"source": "sampled", "shots": 20})
KERNELS = ({}, {"foreach": False}, {"foreach": True}, {"fused": True})


def named(options):
    return "-".join(f"{name}={value}" for name, value in options.items()) or "plain"


def a_model(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 2)).to(dtype)


def some_batches(n, dtype=torch.float64):
    return torch.randn(n, 8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def loss_of(model, batch):
    return (model(batch) - batch[:, :2].sin()).square().mean()


def train(model, optimizer, batches, scheduler=None):
    for batch in batches:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        if scheduler is not None:
            advance(scheduler)


def advance(scheduler):
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(1.0)  # a loss that never falls
    else:
        scheduler.step()


def flat(parameters):
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def in_two_groups(model, **second):
    """Matrices and vectors, as trainers with and without weight decay have them."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0, **second}]


class Twin:
    """reference.AdamWWithSignal, one a parameter group, stepped by the optimizer's pre-hook: it sees the gradients, the
    learning rates and betas that the optimizer sees, and nothing else of it."""

    def __init__(self, optimizer, scheduler=None, scope="tensor", n_qubits=4):
        self.optimizer, self.scheduler = optimizer, scheduler
        self.groups = [
            reference.AdamWWithSignal(
                flat(group["params"]).numpy(),
                *(group["lr"], *group["betas"], group["eps"], group["weight_decay"], group["lambda_"]),
                reference.blocks_of([parameter.numel() for parameter in group["params"]], scope, n_qubits),
                reference.sine_signal,
            )
            for group in optimizer.param_groups
        ]
        optimizer.register_step_pre_hook(lambda *_: self.step())

    def step(self):
        groups = self.optimizer.param_groups
        rates = self.scheduler.get_last_lr() if self.scheduler else [group["lr"] for group in groups]
        for twin, group, rate in zip(self.groups, groups, rates, strict=True):
            twin.lr, (twin.beta1, twin.beta2) = float(rate), group["betas"]
            twin.step(flat([parameter.grad for parameter in group["params"]]).double().numpy())

    @property
    def steps(self):
        return self.groups[0].t

    def distance(self):
        return max(
            np.abs(flat(group["params"]).double().numpy() - twin.theta).max()
            for twin, group in zip(self.groups, self.optimizer.param_groups, strict=True)
        )


# Schedulers

SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, [lambda step: 0.9**step, lambda step: 1 / (1 + step)]),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=3, gamma=0.5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=8),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.02, 0.01], total_steps=14),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=4), lr_scheduler.ExponentialLR(o, gamma=0.8)], milestones=[4]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.3),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_under_a_scheduler_without_perturbation_it_is_adamw_bit_for_bit(name):
    ends = []
    for make in (lambda *own: SuperpositionalAdamW(*own, lambda_=0.0), torch.optim.AdamW):
        model = a_model(torch.float32)
        optimizer = make(in_two_groups(model, lr=3e-3), 1e-2)
        train(model, optimizer, some_batches(12, torch.float32), SCHEDULERS[name](optimizer))
        ends.append((flat(model.parameters()), [(group["lr"], group["betas"]) for group in optimizer.param_groups]))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


@pytest.mark.parametrize("scope", ["tensor", "all"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_under_a_scheduler_the_perturbation_goes_by_its_learning_rate(name, scope):
    model = a_model()
    optimizer = SuperpositionalAdamW(in_two_groups(model, lr=3e-3, lambda_=2.0), lr=1e-2, lambda_=0.7, scope=scope)
    scheduler = SCHEDULERS[name](optimizer)
    twin, rates, betas = Twin(optimizer, scheduler, scope), set(), set()
    for batch in some_batches(12):
        train(model, optimizer, batch[None], scheduler)
        assert twin.distance() < 1e-12
        rates.add(scheduler.get_last_lr()[0])
        betas.add(optimizer.param_groups[0]["betas"])
    assert len(rates) > 2
    assert (len(betas) > 2) == (name == "OneCycleLR")


@pytest.mark.parametrize("scope", ["tensor", "all"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_scheduler_of_a_learning_rate_in_a_tensor_is_followed(scope, fused):
    model, rate = a_model(), torch.tensor(1e-2, dtype=torch.float64)
    optimizer = SuperpositionalAdamW(model.parameters(), lr=rate, lambda_=0.7, scope=scope, fused=fused)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.8)
    twin = Twin(optimizer, scheduler, scope)
    train(model, optimizer, some_batches(6), scheduler)
    assert optimizer.param_groups[0]["lr"] < 3e-3
    assert twin.distance() < 1e-12


@pytest.mark.parametrize("own", [*PERTURBATIONS, *DRAWN], ids=named)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_optimizer_and_scheduler_resume_from_their_states_bit_for_bit(name, own):
    def made(model):
        optimizer = SuperpositionalAdamW(in_two_groups(model), lr=1e-2, **own)
        return optimizer, SCHEDULERS[name](optimizer)

    batches, model = some_batches(10), a_model()
    optimizer, scheduler = made(model)
    train(model, optimizer, batches[:5], scheduler)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    train(model, optimizer, batches[5:], scheduler)
    resumed = a_model(seed=9)
    resumed_optimizer, resumed_scheduler = made(resumed)
    for each, state in zip((resumed, resumed_optimizer, resumed_scheduler), saved, strict=True):
        each.load_state_dict(state)
    train(resumed, resumed_optimizer, batches[5:], resumed_scheduler)
    assert torch.equal(flat(resumed.parameters()), flat(model.parameters()))


# Hugging Face Trainer


def a_llama(dtype=torch.float64):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=20,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16,
            attention_dropout=0.1,
            tie_word_embeddings=True,
        )
    ).to(dtype)


def some_texts(n=16, length=6):
    tokens = torch.randint(20, (n, length), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": row, "labels": row} for row in tokens]


def a_trainer(folder, model, *, max_steps=6, **own):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=max_steps,
        max_grad_norm=0.5,
        learning_rate=1e-2,
        weight_decay=0.1,
        warmup_steps=2,
        save_strategy="steps",
        save_steps=3,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    return transformers.Trainer(model=model, args=arguments, train_dataset=some_texts(), **own)


def with_schedule(optimizer):
    return optimizer, lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))


@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_hugging_face_trainer_steps_it_as_the_twin_steps(tmp_path, scope):
    model = a_llama()
    optimizer = SuperpositionalAdamW(in_two_groups(model), lr=1e-2, weight_decay=0.1, scope=scope)
    optimizer, scheduler = with_schedule(optimizer)
    twin, lengths = Twin(optimizer, scheduler, scope), []
    optimizer.register_step_pre_hook(
        lambda *_: lengths.append(float(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).norm()))
    )
    a_trainer(tmp_path, model, optimizers=(optimizer, scheduler)).train()
    assert twin.steps == 6
    assert max(lengths) == pytest.approx(0.5, rel=1e-4)  # clipped
    assert twin.distance() < 1e-12


def test_hugging_face_trainer_makes_it_with_decay_and_no_decay_groups(tmp_path):
    model = a_llama()
    made = (SuperpositionalAdamW, {"lr": 1e-2, "lambda_": 0.7})
    trainer = a_trainer(tmp_path, model, optimizer_cls_and_kwargs=made)
    optimizer = trainer.create_optimizer()
    twin = Twin(optimizer)
    trainer.train()
    assert [(group["weight_decay"], group["lambda_"]) for group in optimizer.param_groups] == [(0.1, 0.7), (0.0, 0.7)]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    assert twin.steps == 6
    assert twin.distance() < 1e-12


def test_hugging_face_trainer_without_perturbation_is_adamw_bit_for_bit(tmp_path):
    ends = []
    for make in (lambda *own: SuperpositionalAdamW(*own, lambda_=0.0), torch.optim.AdamW):
        model = a_llama(torch.float32)
        a_trainer(tmp_path, model, optimizers=with_schedule(make(in_two_groups(model), 1e-2))).train()
        ends.append(flat(model.parameters()))
    assert torch.equal(*ends)


@pytest.mark.parametrize("own", [*PERTURBATIONS, *DRAWN], ids=named)
def test_hugging_face_trainer_resumed_from_its_checkpoint_goes_on_bit_for_bit(tmp_path, own):
    def trained(**resume):
        model = a_llama(torch.float32)
        optimizer = SuperpositionalAdamW(in_two_groups(model), lr=1e-2, **own)
        a_trainer(tmp_path, model, optimizers=with_schedule(optimizer)).train(**resume)
        return flat(model.parameters())

    whole = trained()
    assert torch.equal(trained(resume_from_checkpoint=str(tmp_path / "checkpoint-3")), whole)


# Accelerate


@pytest.fixture
def accelerate():
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield accelerate
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def prepared(accelerate, model, optimizer, batches, **own):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2, **own)
    rows = torch.utils.data.TensorDataset(batches.flatten(0, 1))
    loader = torch.utils.data.DataLoader(rows, batch_size=batches.shape[1])
    return accelerator, *accelerator.prepare(model, optimizer, loader)


def accelerated(accelerator, model, optimizer, loader, max_norm=0.1):
    for (batch,) in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, batch))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("scope", ["tensor", "all"])
@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_accelerate_steps_it_as_the_twin_steps(accelerate, mixed_precision, scope):
    dtype = torch.float64 if mixed_precision == "no" else torch.float32
    model = a_model(dtype)
    optimizer = SuperpositionalAdamW(in_two_groups(model), lr=1e-2, scope=scope)
    twin = Twin(optimizer, scope=scope)
    accelerated(*prepared(accelerate, model, optimizer, some_batches(10, dtype), mixed_precision=mixed_precision))
    assert twin.steps == 5
    assert twin.distance() < (1e-12 if mixed_precision == "no" else 1e-6)


def test_accelerate_without_perturbation_is_adamw_bit_for_bit(accelerate):
    ends = []
    for make in (lambda *own: SuperpositionalAdamW(*own, lambda_=0.0), torch.optim.AdamW):
        model = a_model(torch.float32)
        accelerated(*prepared(accelerate, model, make(in_two_groups(model), 1e-2), some_batches(10, torch.float32)))
        ends.append(flat(model.parameters()))
    assert torch.equal(*ends)


@pytest.mark.parametrize("own", [*PERTURBATIONS, *DRAWN], ids=named)
def test_accelerate_resumes_from_its_saved_state_bit_for_bit(accelerate, own, tmp_path):
    def made(seed):
        model = a_model(seed=seed)
        optimizer = SuperpositionalAdamW(model.parameters(), lr=1e-2, **own)
        return prepared(accelerate, model, optimizer, some_batches(6))

    first = made(0)
    accelerated(*first)
    first[0].save_state(str(tmp_path))
    accelerated(*first)
    second = made(9)
    second[0].load_state(str(tmp_path))
    accelerated(*second)
    assert torch.equal(flat(second[1].parameters()), flat(first[1].parameters()))


# Scalers, autocast, clipping, accumulation


def scaled_training(model, optimizer, batches, scaler, dtype, max_norm=None):
    for batch in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        if max_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("kernel", KERNELS, ids=named)
@pytest.mark.parametrize("max_norm", [None, 0.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_a_scaler_under_autocast_hands_it_the_gradients_of_the_loss(scope, dtype, max_norm, kernel):
    model = a_model(torch.float32)
    optimizer = SuperpositionalAdamW(in_two_groups(model), lr=1e-2, lambda_=2.0, scope=scope, **kernel)
    twin = Twin(optimizer, scope=scope)
    scaled_training(model, optimizer, some_batches(8, torch.float32), torch.amp.GradScaler("cpu"), dtype, max_norm)
    assert 4 <= twin.steps <= 8
    assert all(np.abs(group.perturbation).max() < 1 for group in twin.groups)
    assert twin.distance() < 1e-6


@pytest.mark.parametrize("kernel", KERNELS, ids=named)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_scaler_without_perturbation_is_adamw_bit_for_bit(dtype, kernel):
    ends = []
    for make in (lambda *own, **kw: SuperpositionalAdamW(*own, **kw, lambda_=0.0), torch.optim.AdamW):
        model = a_model(torch.float32)
        optimizer = make(in_two_groups(model), 1e-2, **kernel)
        scaled_training(model, optimizer, some_batches(8, torch.float32), torch.amp.GradScaler("cpu"), dtype)
        ends.append(flat(model.parameters()))
    assert torch.equal(*ends)


@pytest.mark.parametrize("own", PERTURBATIONS, ids=named)
@pytest.mark.parametrize("kernel", KERNELS, ids=named)
def test_a_step_that_overflowed_is_skipped_whole(kernel, own):
    model = a_model(torch.float32)
    before = flat(model.parameters())
    optimizer = SuperpositionalAdamW(model.parameters(), lambda_=2.0, **own, **kernel)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for sound in (False, True):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, some_batches(1, torch.float32)[0]) * (1.0 if sound else float("inf"))).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(flat(model.parameters()), before) != sound
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("own", PERTURBATIONS, ids=named)
def test_two_micro_batches_make_one_batch_s_step(own):
    whole, halves = a_model(), a_model()
    for model, n_parts in ((whole, 1), (halves, 2)):
        optimizer = SuperpositionalAdamW(model.parameters(), lr=1e-2, **own)
        for batch in some_batches(5):
            optimizer.zero_grad()
            for part in batch.chunk(n_parts):
                (loss_of(model, part) / n_parts).backward()
            optimizer.step()
    assert (flat(whole.parameters()) - flat(halves.parameters())).abs().max() < 1e-12


@pytest.mark.parametrize("foreach", [False, True])
def test_it_perturbs_by_the_clipped_gradient(foreach):
    model = a_model()
    optimizer = SuperpositionalAdamW(model.parameters(), lr=1e-2, foreach=foreach)
    twin = Twin(optimizer)
    for batch in some_batches(5):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        assert torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01, foreach=foreach) > 0.01
        optimizer.step()
    assert twin.distance() < 1e-12


# Which parameters


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


# torch.compile


@pytest.fixture
def wide():
    """Compiled, AdamW corrects its bias in torch's default dtype, not in Python floats; float64 makes them one."""
    torch.set_default_dtype(torch.float64)
    torch._dynamo.reset()
    yield
    torch.set_default_dtype(torch.float32)
    torch._dynamo.reset()


def compiled_training(compiling, make, n=8):
    """`compiling`: what of it is compiled: nothing, the model, the optimizer's step, or the whole training step."""
    model = a_model()
    optimizer = make(model.parameters(), lr=1e-2)
    forward = torch.compile(model, backend="eager") if compiling == "model" else model
    step = torch.compile(optimizer.step, backend="eager") if compiling == "optimizer" else optimizer.step

    def train_step(batch):
        optimizer.zero_grad()
        loss_of(forward, batch).backward()
        step()

    train_step = torch.compile(train_step, backend="eager") if compiling == "training step" else train_step
    for batch in some_batches(n):
        train_step(batch)
    return flat(model.parameters())


def perturbed(**own):
    return lambda *args, **kw: SuperpositionalAdamW(*args, **kw, **own)


@pytest.mark.filterwarnings("ignore")  # see test_compiling_it_warns_of_nothing
@pytest.mark.parametrize("own", PERTURBATIONS, ids=named)
@pytest.mark.parametrize("compiling", ["model", "training step"])
def test_compiled_it_goes_where_it_goes_eagerly(wide, compiling, own):
    make = perturbed(**own, telemetry_every=3)
    eager, compiled = compiled_training(None, make), compiled_training(compiling, make)
    assert (compiled - eager).abs().max() < 1e-12


@pytest.mark.parametrize("compiling", ["model", "training step"])
def test_compiled_without_perturbation_it_is_adamw_compiled_or_not(wide, compiling):
    ours = compiled_training(compiling, perturbed(lambda_=0.0))
    assert (compiled_training(compiling, torch.optim.AdamW) - ours).abs().max() < 1e-12


@pytest.mark.parametrize("own", [SINES[1], SINES[0], PERTURBATIONS[2]], ids=named)
def test_compiling_it_warns_of_nothing(wide, own):
    compiled_training("training step", perturbed(**own), n=2)


# torch's own checks


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
                told = pytest.warns if issubclass(error.error_type, Warning) else pytest.raises
                with told(error.error_type, match=error.error_regex):
                    make(parameters, **own.kwargs)


def test_fused_with_foreach_is_refused_as_adamw_refuses_it():
    for make in (torch.optim.AdamW, SuperpositionalAdamW):
        with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
            make(a_model().parameters(), foreach=True, fused=True)


# State


def through_state_dict(model, optimizer, other, other_optimizer):
    other.load_state_dict(model.state_dict())
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def through_distributed_checkpoint(model, optimizer, other, other_optimizer, flatten=False):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    other.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other, other_optimizer, saved, options=options)


def through_flattened_distributed_checkpoint(*own):
    through_distributed_checkpoint(*own, flatten=True)


WAYS = (through_state_dict, through_distributed_checkpoint, through_flattened_distributed_checkpoint)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("own", [*PERTURBATIONS, *DRAWN], ids=named)
@pytest.mark.parametrize("kernel", KERNELS, ids=named)
def test_restored_it_goes_on_bit_for_bit_with_the_lambdas_of_its_groups(way, own, kernel):
    batches, model, other = some_batches(8), a_model(), a_model(seed=9)
    optimizer = SuperpositionalAdamW(in_two_groups(model, lambda_=2.0), lr=1e-2, lambda_=0.7, **own, **kernel)
    train(model, optimizer, batches[:4])
    resumed = SuperpositionalAdamW(in_two_groups(other), lr=1.0, lambda_=9.0, **own, **kernel)
    way(model, optimizer, other, resumed)
    assert [group["lambda_"] for group in resumed.param_groups] == [0.7, 2.0]
    for each, its in ((model, optimizer), (other, resumed)):
        train(each, its, batches[4:])
    assert torch.equal(flat(other.parameters()), flat(model.parameters()))


@pytest.mark.parametrize(
    "way",
    [
        *WAYS[:2],
        pytest.param(
            WAYS[2],
            marks=pytest.mark.xfail(
                strict=True, raises=KeyError, reason="torch asks a flattened state for every key of the group: lambda_"
            ),
        ),
    ],
)
def test_the_state_of_adamw_moves_in_and_its_own_moves_out_bit_for_bit(way):
    batches, models = some_batches(9), [a_model(seed=seed) for seed in range(4)]
    kinds = [torch.optim.AdamW, lambda *own: SuperpositionalAdamW(*own, lambda_=0.0), torch.optim.AdamW]
    optimizers = [make(in_two_groups(model), 1e-2) for make, model in zip(kinds, models, strict=False)]
    for at, (model, optimizer) in enumerate(zip(models, optimizers, strict=False)):
        if at > 0:
            way(models[at - 1], optimizers[at - 1], model, optimizer)
        train(model, optimizer, batches[3 * at : 3 * at + 3])
    whole = a_model()
    train(whole, torch.optim.AdamW(in_two_groups(whole), 1e-2), batches)
    assert torch.equal(flat(models[2].parameters()), flat(whole.parameters()))


@pytest.mark.parametrize("way", WAYS[:2])
def test_the_state_of_adamw_leaves_each_group_its_own_lambda(way):
    plain, model = a_model(), a_model(seed=9)
    adamw, optimizer = torch.optim.AdamW(in_two_groups(plain)), SuperpositionalAdamW(in_two_groups(model, lambda_=0.0))
    train(plain, adamw, some_batches(2))
    way(plain, adamw, model, optimizer)
    assert [group["lambda_"] for group in optimizer.param_groups] == [0.5, 0.0]


@pytest.mark.parametrize("way", [WAYS[0], *(way for way in WAYS[1:])])
def test_its_telemetry_starts_with_the_first_step_after_it_was_restored(way):
    model, other = a_model(), a_model(seed=9)
    optimizer, resumed = (SuperpositionalAdamW(own.parameters(), telemetry_every=1) for own in (model, other))
    train(model, optimizer, some_batches(2))
    optimizer.telemetry()
    way(model, optimizer, other, resumed)
    for own, its in ((model, optimizer), (other, resumed)):
        train(own, its, some_batches(3))
    assert resumed.telemetry() == optimizer.telemetry()


@pytest.mark.parametrize("own", [*PERTURBATIONS, *DRAWN], ids=named)
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_deep_copy_goes_on_bit_for_bit_and_leaves_the_original_alone(own, scheduled):
    model = a_model()
    optimizer = SuperpositionalAdamW(in_two_groups(model, lambda_=2.0), lr=1e-2, **own)
    scheduler = lr_scheduler.StepLR(optimizer, 2) if scheduled else None
    train(model, optimizer, some_batches(3), scheduler)
    before = flat(model.parameters())
    copied = copy.deepcopy((model, optimizer, scheduler))
    train(copied[0], copied[1], some_batches(4), copied[2])
    assert torch.equal(flat(model.parameters()), before)
    train(model, optimizer, some_batches(4), scheduler)
    assert torch.equal(flat(copied[0].parameters()), flat(model.parameters()))


@pytest.mark.parametrize("own", PERTURBATIONS, ids=named)
def test_a_group_added_between_steps_moves_as_an_optimizer_of_its_own_would(own):
    together, apart = a_model(), a_model()
    front = {"lr": 1e-2, "lambda_": 0.7, **own}
    optimizer = SuperpositionalAdamW(together[2].parameters(), **front)
    others = [SuperpositionalAdamW(apart[2].parameters(), **front)]
    for step, batch in enumerate(some_batches(6)):
        if step == 3:
            optimizer.add_param_group({"params": list(together[0].parameters()), "lr": 3e-3, "lambda_": 2.0})
            others.append(SuperpositionalAdamW(apart[0].parameters(), **{**front, "lr": 3e-3, "lambda_": 2.0}))
        for model, optimizers in ((together, [optimizer]), (apart, others)):
            model.zero_grad()
            loss_of(model, batch).backward()
            for each in optimizers:
                each.step()
    assert torch.equal(flat(together.parameters()), flat(apart.parameters()))


def test_parameters_with_names_keep_them_in_the_state_dict():
    model, plain = a_model(), a_model()
    optimizer = SuperpositionalAdamW(model.named_parameters(), lambda_=0.0)
    other = torch.optim.AdamW(plain.named_parameters())
    for own, its in ((model, optimizer), (plain, other)):
        train(own, its, some_batches(2))
    names = optimizer.state_dict()["param_groups"][0]["param_names"]
    assert names == other.state_dict()["param_groups"][0]["param_names"]
    assert torch.equal(flat(model.parameters()), flat(plain.parameters()))
