from contextlib import contextmanager

import pytest
import torch
from support.replicas import in_two_processes
from support.small_tasks import some_problems
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from qsgd_ray.config.workload import ChatFormat
from qsgd_ray.models.pretrained import load_pretrained
from qsgd_ray.outcome import Evaluation
from qsgd_ray.workloads._chat import IGNORED, encode
from qsgd_ray.workloads._token_batches import TokenBatches
from qsgd_ray.workloads._token_loss import _token_loss, backward_step, evaluate_tokens

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")


def a_model(dtype=torch.float64):
    model, tokenizer = load_pretrained("tiny")
    return model.to(dtype), tokenizer


def some_batches(loss_on="answer", **options):
    _, tokenizer = a_model()
    form = ChatFormat(loss_on=loss_on)
    examples = encode(some_problems(24), tokenizer, form).examples
    return TokenBatches(examples, **{"batch_size": 6, "pad_id": tokenizer.pad_token_id} | options), examples


def naive(model, examples):
    """Losses token by token, example by example; and how many tokens are the likeliest."""
    losses, n_correct = [], 0
    for example in examples:
        log_p = F.log_softmax(model(example.ids[None]).logits[0], dim=-1)
        for at, label in enumerate(example.labels.tolist()):
            if label != IGNORED:
                losses.append(-log_p[at - 1, label])
                n_correct += bool(log_p[at - 1].argmax() == label)
    return torch.stack(losses), n_correct


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("loss_on", ["answer", "all"])
@pytest.mark.parametrize("pack_to", [None, 400])
def test_the_sum_is_that_of_every_token_alone(loss_on, pack_to):
    model, _ = a_model()
    made, examples = some_batches(loss_on, pack_to=pack_to, batch_size=1)
    losses, n_correct = naive(model, examples)
    told = evaluate_tokens(model, made.share(batch_size=4))
    assert (told.n, told.n_correct) == (len(losses), n_correct)
    assert n_correct > 0
    assert told.loss_sum == pytest.approx(losses.sum().item(), rel=1e-12)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro", [None, 1, 2])
@pytest.mark.parametrize("pack_to", [None, 150])
def test_ranks_and_parts_give_the_mean_and_the_gradient_of_one_process(world_size, micro, pack_to):
    model, _ = a_model()
    one, _ = some_batches(pack_to=pack_to)
    parts, _ = some_batches(pack_to=pack_to, micro_batch_size=micro)
    step = next(one.steps(4, 1))
    (batch,) = step.micro_batches
    (_token_loss(model, batch) / step.n_tokens).backward()
    expected, total = gradient(model), _token_loss(model, batch).item()

    sums, gradients = 0.0, []
    for rank in range(world_size):
        model.zero_grad()
        sums += backward_step(model, next(parts.steps(4, 1, rank, world_size)), world_size).item()
        gradients.append(gradient(model))
    assert sums == pytest.approx(total, rel=1e-12)
    # DistributedDataParallel takes the mean over the ranks. Llama's norms are float32 within, whatever the model is.
    assert (torch.stack(gradients).mean(dim=0) - expected).norm() < 1e-6 * expected.norm()


def test_the_mean_of_means_would_be_another_loss():
    model, _ = a_model()
    parts, _ = some_batches(micro_batch_size=1)
    step = next(parts.steps(0, 0))
    n = [int((batch.labels != IGNORED).sum()) for batch in step.micro_batches]
    sums = [_token_loss(model, batch).item() for batch in step.micro_batches]
    assert len(set(n)) > 1
    assert sum(s / m for s, m in zip(sums, n, strict=True)) / len(n) != pytest.approx(sum(sums) / sum(n), rel=1e-6)


def test_gradients_are_averaged_over_the_ranks_at_the_last_part_only():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.silent, self.told = inner, False, []

        def forward(self, **inputs):
            self.told.append(self.silent)
            return self.inner(**inputs)

        @contextmanager
        def no_sync(self):
            self.silent = True
            yield
            self.silent = False

    model = Wrapped(a_model()[0])
    backward_step(model, next(some_batches(micro_batch_size=2)[0].steps(0, 0)))
    assert model.told == [True, True, False]


def test_a_loss_may_be_scaled_before_it_is_differentiated():
    model, _ = a_model()
    step = next(some_batches()[0].steps(0, 0))
    backward_step(model, step)
    plain = gradient(model)
    model.zero_grad()
    backward_step(model, step, backward=lambda loss: (loss * 8).backward())
    torch.testing.assert_close(gradient(model), 8 * plain)


def test_half_precision_sums_in_single():
    model, _ = a_model(torch.bfloat16)
    assert _token_loss(model, next(some_batches()[0].steps(0, 0)).micro_batches[0]).dtype == torch.float32


def test_measuring_puts_the_mode_back_and_leaves_no_gradient():
    model, _ = a_model()
    evaluate_tokens(model.train(), some_batches()[0].share())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_shares_add_up_and_one_may_be_empty():
    model, _ = a_model()
    made, _ = some_batches()
    whole = evaluate_tokens(model, made.share())
    shares = [evaluate_tokens(model, made.share(rank, 30)) for rank in range(30)]
    assert sum(share.n for share in shares) == whole.n
    assert sum(share.n_correct for share in shares) == whole.n_correct
    assert sum(share.loss_sum for share in shares) == pytest.approx(whole.loss_sum, rel=1e-12)
    assert shares[29] == Evaluation(0.0, 0, 0)


def replica_of_two(rank):
    """The gradient that one of two replicas ends with, each in parts of one sequence."""
    model, _ = a_model()
    backward_step(DistributedDataParallel(model), next(some_batches(micro_batch_size=1)[0].steps(2, 0, rank, 2)), 2)
    return gradient(model)


def test_two_replicas_have_the_gradient_of_one_process(tmp_path):
    found, the_others = in_two_processes(replica_of_two, tmp_path)
    assert torch.equal(found, the_others)
    model, _ = a_model()
    backward_step(model, next(some_batches()[0].steps(2, 0)))
    assert (found - gradient(model)).norm() < 1e-6 * found.norm()
