"""A HuggingFaceTask trains: paired, repeatable, resumed to the bit, shared by ranks; its metrics are what they say."""

import math
from importlib.util import find_spec

import pytest
import torch
from support.checkpoint_runs import Run, go
from support.huggingface import a_task, reviews, save_tiny, write_reviews
from support.trainings import small_trial, without_times

from qsgd_ray.config import Arm, HuggingFaceTask, Lora, Perturbation, Splits, StudyError
from qsgd_ray.config.workload import QuantumAttention
from qsgd_ray.models import pretrained
from qsgd_ray.outcome import Ending
from qsgd_ray.storage import storage_at
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import _SINGLE_PROCESS
from qsgd_ray.workloads import make_workload
from qsgd_ray.workloads.determinism import require_repeatable

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")
needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="needs the package peft")
ADAPTERS = Lora(r=2, dropout=0.1)


def a_trial(task, epochs=2, **fields):
    return small_trial(workload=task, epochs=epochs, arm=Arm(name="a", learning_rate=1e-2), **fields)


def trained(task, epochs=2, **fields):
    return run(train(a_trial(task, epochs, **fields), make_workload(task), None), lambda _: False)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"head": "causal"},
        {"autocast": "bfloat16", "gradient_checkpointing": True, "fresh": True, "clip_norm": 1.0},
        pytest.param({"lora": ADAPTERS, "attention": QuantumAttention(n_qubits=2, depth=1)}, marks=needs_peft),
    ],
    ids=["classification", "causal", "recipe", "adapters"],
)
def test_it_learns_and_repeats_to_the_bit(tmp_path, fields):
    task = a_task(tmp_path, **fields)
    torch.manual_seed(1)
    first = trained(task)
    torch.manual_seed(2)
    second = trained(task)
    assert first.ending is Ending.COMPLETED
    assert first.parameters_sha256 == second.parameters_sha256
    assert [without_times(m) for m in first.measurements] == [without_times(m) for m in second.measurements]
    assert first.measurements[-1].validation_loss < first.measurements[0].train_loss
    assert (first.test_accuracy is None) == (task.head == "causal")
    assert first.measurements[-1].n_tokens > 0
    assert first.measurements[-1].model_flops > 0
    assert trained(task, seed=8).parameters_sha256 != first.parameters_sha256


def test_it_tells_reviews_apart(tmp_path):
    outcome = trained(a_task(tmp_path), epochs=6)
    assert outcome.test_accuracy > 0.9
    assert outcome.test_metrics is None


@needs_peft
def test_a_resumed_training_is_an_uninterrupted_one(tmp_path):
    planned = Run("cut", a_trial(a_task(tmp_path, lora=ADAPTERS)), cuts=(3, 3), every=2)
    whole = go(Run("whole", planned.trial), None, _SINGLE_PROCESS)
    resumed = go(planned, storage_at(tmp_path / "results"), _SINGLE_PROCESS)
    assert resumed.parameters_sha256 == whole.parameters_sha256
    assert [without_times(m) for m in resumed.measurements] == [without_times(m) for m in whole.measurements]


def test_perplexity_is_the_exponential_of_the_loss_of_a_token(tmp_path):
    task = a_task(tmp_path, head="causal")
    workload = make_workload(task)
    model = workload.make_model(1).eval()
    losses = []
    tokenizer = pretrained.load_tokenizer("tiny")
    for text, _ in reviews(10, 32):
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        logits = model(torch.tensor([ids])).logits[0, :-1]
        losses += torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").tolist()
    evaluation = workload.evaluate(model, "validation")
    total, count = evaluation.sums["perplexity"]
    assert count == len(losses)
    assert math.isclose(total, sum(losses), rel_tol=1e-5)
    outcome = trained(task, epochs=1)
    assert outcome.measurements[0].metrics["perplexity"] > 1
    assert math.log(outcome.test_metrics["perplexity"]) == pytest.approx(outcome.test_loss, rel=0.05)


def test_padding_changes_no_logit(tmp_path):
    workload = make_workload(a_task(tmp_path))
    model, rows = workload.make_model(1).eval(), workload._train.source
    together = workload.settings.logits(model, rows.collate_items([rows[index] for index in range(8)]))
    alone = torch.cat([workload.settings.logits(model, rows.collate_items([rows[index]])) for index in range(8)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["classification", "causal"])
def test_ranks_share_the_work_of_one_process(tmp_path, head):
    workload = make_workload(a_task(tmp_path, head=head))
    model = workload.make_model(1)
    whole = workload.evaluate(model, "test")
    shares = [workload.evaluate(model, "test", rank, 3) for rank in range(3)]
    assert sum(share.n for share in shares) == whole.n == 12
    assert math.isclose(sum(share.loss_sum for share in shares), whole.loss_sum, rel_tol=1e-5)

    def gradient(rank, size):
        model = workload.make_model(3)
        batch = next(iter(workload.batches(3, 1, rank, size)))
        workload.backward(model, batch, size)
        return workload.work(batch), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    work, together = gradient(0, 1)
    parts = [gradient(rank, 2) for rank in range(2)]
    assert all(part == work for part, _ in parts)
    torch.testing.assert_close(sum(grad for _, grad in parts) / 2, together, rtol=1e-3, atol=1e-5)


@needs_peft
def test_arms_share_weights_head_adapters_and_order(tmp_path):
    folder = str(save_tiny(tmp_path / "model"))
    left, right, wide = (
        make_workload(a_task(tmp_path, pretrained=folder, lora=lora))
        for lora in (Lora(r=2), Lora(r=2, alpha=4), Lora(r=4))
    )
    models = [dict(workload.make_model(5).named_parameters()) for workload in (left, right, wide)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    same = [name for name in models[0] if models[0][name].shape == models[2][name].shape]
    assert any("score" in name for name in same)
    assert all(torch.equal(models[0][name], models[2][name]) for name in same)
    other = dict(left.make_model(6).named_parameters())
    moved = {name for name in other if not torch.equal(other[name], models[0][name])}
    assert moved
    assert all("lora_A" in name or "score" in name for name in moved)
    for one, two in zip(left.batches(5, 1), wide.batches(5, 1), strict=True):
        assert torch.equal(one.items["input_ids"], two.items["input_ids"])


@needs_peft
def test_a_perturbation_reaches_the_adapters(tmp_path):
    task = a_task(tmp_path, lora=ADAPTERS)
    perturbed = small_trial(Perturbation(source="sine", lambda_=0.5), workload=task, epochs=1)
    outcome = run(train(perturbed, make_workload(task), None), lambda _: False)
    assert outcome.ending is Ending.COMPLETED
    assert outcome.measurements[0].perturbation_norm > 0
    plain = run(train(small_trial(workload=task, epochs=1), make_workload(task), None), lambda _: False)
    assert plain.parameters_sha256 != outcome.parameters_sha256


def test_a_fresh_model_needs_a_configuration_alone(tmp_path):
    folder = save_tiny(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(StudyError, match=r"pretrained: got .*, a folder without model.safetensors; allowed: one that"):
        make_workload(a_task(tmp_path, pretrained=str(folder)))
    first, second = (make_workload(a_task(tmp_path, pretrained=str(folder), fresh=True)) for _ in range(2))
    models = [first.make_model(1), second.make_model(1), first.make_model(2)]
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_weights_in_a_pickle_are_refused_in_one_line(tmp_path):
    folder = save_tiny(tmp_path / "model")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(StudyError, match=r"pretrained: got .*, a folder without model.safetensors; allowed: one that"):
        make_workload(a_task(tmp_path, pretrained=str(folder)))


class Own(HuggingFaceTask):
    """Examples, a loss and a metric of its own."""

    flip: bool = False

    def texts(self, generator):
        rows = [(text, "about what", 1 - label if self.flip else label) for text, label in reviews(32)]
        return Splits(rows, rows[:9], rows[:7])

    def loss(self, model, batch):
        return torch.nn.functional.cross_entropy(self.logits(model, batch), batch["labels"], label_smoothing=0.1)

    def metrics(self, model, batch):
        right = self.logits(model, batch).argmax(1) == batch["labels"]
        return {"accuracy": (right.sum(), len(right))}


def test_a_class_states_examples_loss_and_metrics():
    task = Own(pretrained="tiny", batch_size=8)
    outcome = trained(task)
    assert outcome.ending is Ending.COMPLETED
    assert outcome.test_accuracy is not None
    assert trained(Own(pretrained="tiny", batch_size=8, flip=True)).parameters_sha256 != outcome.parameters_sha256


class Encoded(Own):
    """Data and a model of its own."""

    def texts(self, generator):
        raise AssertionError("not asked")

    def data(self, generator):
        part = [{"x": torch.randn(3, generator=generator), "labels": index % 2} for index in range(16)]
        return Splits(part, part, part)

    def model(self, generator):
        return torch.nn.Linear(3, 2)

    def logits(self, model, batch):
        return model(batch["x"])


def test_a_class_states_data_and_model():
    outcome = trained(Encoded(pretrained="tiny", batch_size=8))
    assert outcome.ending is Ending.COMPLETED
    assert outcome.measurements[-1].n_tokens is None


class Wrong(Own):
    """Examples of a wrong form."""

    which: int = 0

    def texts(self, generator):
        row = [("a", 0), ("a", 1.0), ("a", 2), "a", ("a", "b", "c", 0), ("", 0)][self.which]
        return [row] if self.which == 0 else Splits([row] * 8, [row], [row])


@pytest.mark.parametrize(
    ("which", "said"),
    [
        (0, r"texts: got a list; allowed: Splits\(train, validation, test\)"),
        (1, r"data: got \('a', 1.0\) in train; allowed: a list of tuples \(text, label\) or"),
        (2, r"n_classes: got 2; allowed: more than the label 2 of train"),
        (3, r"data: got 'a' in train; allowed: a list of tuples"),
        (4, r"data: got \('a', 'b', 'c', 0\) in train; allowed"),
        (5, r"data: got \('', 0\) in train, which has no token; allowed: texts with some"),
    ],
)
def test_examples_of_a_wrong_form_are_refused(which, said):
    with pytest.raises(ValueError, match=said):
        make_workload(Wrong(pretrained="tiny", which=which))


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        StudyError, match=r"pretrained: got 'tiny', which needs .* pip install 'qsgd-ray\[huggingface\]'"
    ):
        make_workload(a_task(tmp_path))


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    data = write_reviews(tmp_path, {"train": 4, "validation": 2, "test": 2})
    with pytest.raises(ValueError, match="batch_size: got 5; allowed: at most the 4 items"):
        make_workload(HuggingFaceTask(pretrained="tiny", dataset=str(data), batch_size=5))


@pytest.mark.slow
def test_its_first_step_repeats_itself_in_a_new_process(tmp_path):
    require_repeatable([a_task(tmp_path)])
