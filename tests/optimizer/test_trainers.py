"""SuperpositionalAdamW under Hugging Face's Trainer and Accelerate."""

import pytest
import torch
from support.client_training import (
    DRAWN,
    PERTURBATIONS,
    QUIET_DYNAMO,
    Twin,
    a_model,
    flat,
    in_two_groups,
    loss_of,
    named,
    some_batches,
)
from torch.optim import lr_scheduler

from qsgd_ray.optimizer import SuperpositionalAdamW

pytestmark = [pytest.mark.slow, QUIET_DYNAMO]


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
