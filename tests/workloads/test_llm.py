"""Fine-tuning through the loop of all workloads: a naive loop's bits, one rank or two, data in order."""

from dataclasses import astuple, replace

import pytest
import torch
from support.replicas import in_two_processes
from support.small_tasks import a_language_task
from support.trainings import without_times
from torch.nn.utils import clip_grad_norm_

from qsgd_ray.config import Arm, ChatFormat, LanguageTask, Perturbation, StudyError
from qsgd_ray.config.trial import Trial
from qsgd_ray.models.pretrained import load_pretrained
from qsgd_ray.outcome import AnswerCounts, Ending, Outcome
from qsgd_ray.results._rows import trial_row
from qsgd_ray.training._state import fingerprint
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import llm, make_workload
from qsgd_ray.workloads._chat import encode
from qsgd_ray.workloads._generation import Answer
from qsgd_ray.workloads._token_batches import TokenBatches
from qsgd_ray.workloads._token_loss import _token_loss, evaluate_tokens
from qsgd_ray.workloads._word_problems import load_word_problems

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")


def a_trial(workload: LanguageTask, perturbation: Perturbation | None = None, **fields) -> Trial:
    arm = Arm(name="a", learning_rate=1e-2, weight_decay=0.01, perturbation=perturbation)
    settings = {"study": "s", "stage": "confirm", "number": 0, "arm": arm, "workload": workload, "seed": 7, "epochs": 2}
    return Trial(**settings | {"workers": 1, "reads_test": True} | fields)


def run_through(trial: Trial) -> Outcome:
    return run(train(trial, make_workload(trial.workload), None), lambda _: False)


def test_the_loop_is_a_naive_loop_bit_for_bit(tmp_path):
    """Three epochs of two steps, over a pass of five: warm-up, decay, clipping, and batches in parts."""
    recipe = {"steps_per_epoch": 2, "warmup_steps": 2, "decay": "linear", "clip_norm": 0.5}
    task = a_language_task(tmp_path, batch_size=2, micro_batch_size=1, **recipe)
    outcome = run_through(a_trial(task, epochs=3))

    model, tokenizer = load_pretrained("tiny", seed=7)
    problems = load_word_problems(task.data)
    data = TokenBatches(
        encode(problems.train, tokenizer, ChatFormat()).examples,
        batch_size=2,
        micro_batch_size=1,
        pad_id=tokenizer.pad_token_id,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01, fused=True)
    steps = [*data.steps(7, 0), *data.steps(7, 1)][:6]
    losses = []
    for step, factor in zip(steps, (0 / 2, 1 / 2, 4 / 4, 3 / 4, 2 / 4, 1 / 4), strict=True):
        optimizer.param_groups[0]["lr"] = 1e-2 * factor
        optimizer.zero_grad()
        for batch in step.micro_batches:
            (_token_loss(model, batch) * (1 / step.n_tokens)).backward()
        losses.append(sum(_token_loss(model, batch).item() for batch in step.micro_batches) / step.n_tokens)
        clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    assert outcome.parameters_sha256 == fingerprint(model)
    assert outcome.ending is Ending.COMPLETED
    assert [m.step for m in outcome.measurements] == [2, 4, 6]
    means = [(first + second) / 2 for first, second in zip(losses[::2], losses[1::2], strict=True)]
    assert [m.train_loss for m in outcome.measurements] == pytest.approx(means, rel=1e-12)

    test = encode(problems.test, tokenizer, ChatFormat()).examples
    evaluation = evaluate_tokens(model, TokenBatches(test, batch_size=1, pad_id=tokenizer.pad_token_id).share())
    assert outcome.test_loss == pytest.approx(evaluation.loss_sum / evaluation.n, rel=1e-12)
    assert outcome.test_accuracy == evaluation.n_correct / evaluation.n


@pytest.mark.parametrize("perturbation", [None, Perturbation(source="random_sign"), Perturbation(source="circuit")])
def test_the_same_trial_gives_the_same_bits(tmp_path, perturbation):
    trial = a_trial(a_language_task(tmp_path, n_answers=2, max_new_tokens=3), perturbation)
    first, second = run_through(trial), run_through(trial)
    assert first.parameters_sha256 == second.parameters_sha256
    assert [without_times(m) for m in first.measurements] == [without_times(m) for m in second.measurements]
    assert replace(first, measurements=(), test_s=0.0) == replace(second, measurements=(), test_s=0.0)


@pytest.mark.parametrize("source", ["zero", "sine", "circuit"])
def test_an_arm_with_lambda_zero_is_the_baseline_under_schedule_and_clipping(tmp_path, source):
    task = a_language_task(tmp_path, warmup_steps=2, decay="linear", clip_norm=0.5)
    outcomes = [run_through(a_trial(task, arm)) for arm in (None, Perturbation(source=source, lambda_=0.0))]
    assert outcomes[0].parameters_sha256 == outcomes[1].parameters_sha256
    stronger = run_through(a_trial(task, Perturbation(source="sine", lambda_=5.0)))
    assert stronger.parameters_sha256 != outcomes[0].parameters_sha256


def test_frozen_weights_are_none_of_the_optimizers(tmp_path):
    """So `model` means the first coordinates that train."""
    pytest.importorskip("peft")
    task = a_language_task(tmp_path, lora={"r": 2}, attention={"n_qubits": 2, "depth": 1})
    workload = make_workload(task)
    models = []
    make = workload.make_model
    workload.make_model = lambda seed: models.append(make(seed)) or models[-1]
    outcome = run(train(a_trial(task, Perturbation(source="sine", scope="model")), workload, None), lambda _: False)
    assert outcome.measurements[-1].perturbation_norm > 0
    started, ended = (dict(model.named_parameters()) for model in (make(7), *models))
    moved = {name for name in started if not torch.equal(started[name], ended[name])}
    assert moved
    assert all(started[name].requires_grad for name in moved)
    assert all(any(word in name for name in moved) for word in ("lora", "quantum"))


def test_settings_reach_the_model_and_its_data(tmp_path):
    plain = run_through(a_trial(a_language_task(tmp_path)))
    assert run_through(a_trial(a_language_task(tmp_path, gradient_checkpointing=True))).parameters_sha256 == (
        plain.parameters_sha256
    )
    half = make_workload(a_language_task(tmp_path, dtype="bfloat16")).make_model(7)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    packed = make_workload(a_language_task(tmp_path, form=ChatFormat(context=200, pack=True)))
    assert 1 < packed.steps_per_epoch < 10
    validation = packed.evaluate(packed.make_model(7), "validation")
    alone = make_workload(a_language_task(tmp_path)).evaluate(packed.make_model(7), "validation")
    assert validation == alone, "held-out data is never packed"
    on_all = make_workload(a_language_task(tmp_path, form=ChatFormat(loss_on="all")))
    assert on_all.evaluate(packed.make_model(7), "validation").n > alone.n
    assert (plain.measurements[0].step, on_all.settings.accuracy_name) == (10, "accuracy of tokens")


def test_the_order_goes_on_from_epoch_to_epoch_over_the_passes(tmp_path):
    task = a_language_task(tmp_path, batch_size=2, steps_per_epoch=3)
    workload, whole = make_workload(task), make_workload(task.model_copy(update={"steps_per_epoch": None}))
    assert (workload.steps_per_epoch, whole.steps_per_epoch) == (3, 5)

    def ids(workload, *epochs, rank=0, world_size=1):
        steps = [step for epoch in epochs for step in workload.batches(4, epoch, rank, world_size)]
        return [[batch.input_ids.tolist() for batch in step.micro_batches] for step in steps]

    assert ids(workload, 1, 2, 3, 4, 5) == ids(whole, 1, 2, 3)
    assert ids(workload, 2) == ids(whole, 1, 2)[3:6]
    first, second = ids(whole, 1), ids(whole, 2)
    assert sorted(map(str, first)) != sorted(map(str, second)), "another order, so other pairs"
    longer = make_workload(task.model_copy(update={"steps_per_epoch": 12}))
    assert ids(longer, 1) == ids(whole, 1, 2, 3)[:12]
    assert len(ids(workload, 1, rank=1, world_size=2)) == 3
    with pytest.raises(StudyError, match=r"world_size: got 3; allowed: at most batch_size \(2\)"):
        ids(workload, 1, world_size=3)


def test_answers_are_counted_of_the_first_test_problems_and_leave_their_columns(tmp_path, monkeypatch):
    def three(model, tokenizer, problems, form, *, max_new_tokens, rank, world_size):
        assert (len(problems), max_new_tokens, rank, world_size) == (3, 9, 0, 1)
        numbers = (problems[0].number, "-1", None)
        return [Answer(n, "", number, n == 0, 1, True) for n, number in enumerate(numbers)]

    monkeypatch.setattr(llm, "generate_answers", three)
    trial = a_trial(a_language_task(tmp_path, n_answers=3, max_new_tokens=9))
    outcome = run_through(trial)
    assert outcome.answers == AnswerCounts(n_right=1, n_without_number=1, n=3)
    row = trial_row(trial, outcome)
    assert (row["answers"], row["answers_right"], row["answers_without_number"]) == (3, 1, 1)
    for trial_without in (
        a_trial(a_language_task(tmp_path)),
        a_trial(trial.workload, reads_test=False),
    ):
        row = trial_row(trial_without, run_through(trial_without))
        assert (row["answers"], row["answers_right"], row["answers_without_number"]) == (None, None, None)


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(StudyError, match=r"model: got 'nothing', and there is no such folder; allowed: 'tiny', "):
        make_workload(a_language_task(tmp_path, model="nothing"))
    with pytest.raises(StudyError, match=r"batch_size: got 11; allowed: 1 to 10, the sequences there are"):
        make_workload(a_language_task(tmp_path, batch_size=11))


@pytest.mark.parametrize("micro", [None, 1])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_gradients_of_the_ranks_have_that_of_one_process_as_their_mean(tmp_path, world_size, micro):
    """Also where their parts are not equally large."""
    workload = make_workload(a_language_task(tmp_path, batch_size=4, micro_batch_size=micro))
    model = workload.make_model(3).double()

    def loss_and_gradient(rank, world_size):
        model.zero_grad()
        loss = workload.backward(model, next(workload.batches(1, 1, rank, world_size)), world_size)
        return loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    losses, gradients = zip(*(loss_and_gradient(rank, world_size) for rank in range(world_size)), strict=True)
    loss, gradient = loss_and_gradient(0, 1)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.stack(gradients).mean(0), gradient)


def shared(task: LanguageTask, rank: int, world_size: int) -> tuple[Outcome, torch.Tensor]:
    """A trial on one of so many replicas, and where its parameters ended."""
    workload = make_workload(task)
    models = []
    make = workload.make_model
    workload.make_model = lambda seed: models.append(make(seed)) or models[-1]
    # A larger eps, as Adam's step makes the rounding of the smallest gradients as large as any.
    arm = Arm(name="a", learning_rate=1e-3, eps=1e-3, perturbation=Perturbation(source="sine", lambda_=5.0))
    trial = a_trial(task, arm=arm, workers=world_size)
    outcome = run(train(trial, workload, None, Replica(rank, world_size)), lambda _: False)
    return outcome, torch.cat([p.detach().flatten() for p in models[0].parameters()])


def one_of_two(rank, task):
    return shared(task, rank, 2)


def test_two_ranks_train_what_one_process_trains(tmp_path):
    task = a_language_task(
        tmp_path,
        batch_size=4,
        micro_batch_size=1,
        warmup_steps=1,
        decay="linear",
        clip_norm=0.5,
        n_answers=3,
        max_new_tokens=2,
    )
    (outcome, ended), (_, the_others) = in_two_processes(one_of_two, tmp_path, task)
    assert torch.equal(ended, the_others)

    alone, expected = shared(task, 0, 1)
    started = torch.cat([p.detach().flatten() for p in make_workload(task).make_model(7).parameters()])
    assert (ended - expected).norm() < 1e-4 * (expected - started).norm()
    for two, one in zip(outcome.measurements, alone.measurements, strict=True):
        assert (two.train_loss, two.validation_loss) == pytest.approx((one.train_loss, one.validation_loss), rel=1e-6)
        assert two.validation_accuracy == one.validation_accuracy
    assert outcome.test_loss == pytest.approx(alone.test_loss, rel=1e-6)
    assert astuple(outcome.answers) == astuple(alone.answers)
    assert outcome.answers.n == 3
