"""The text workload: ranks share the work of one process, seeds decide, evaluation changes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_tasks import a_text_task

from qsgd_ray.config import StudyError, study_from_tree
from qsgd_ray.workloads import make_workload
from qsgd_ray.workloads._text_data import make_split

pytestmark = pytest.mark.usefixtures("one_thread")
WORKLOAD = make_workload(a_text_task())


@settings(deadline=None, max_examples=40)
@given(world_size=st.integers(1, 32), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 50))
def test_the_shards_of_the_ranks_make_the_batch_of_one_process(world_size, seed, epoch):
    whole = list(WORKLOAD.batches(seed, epoch, 0, 1))
    shards = [list(WORKLOAD.batches(seed, epoch, rank, world_size)) for rank in range(world_size)]
    assert len(whole) == WORKLOAD.steps_per_epoch == 6
    for step, batch in enumerate(whole):
        for rank in range(world_size):
            assert torch.equal(shards[rank][step].tokens, batch.tokens[rank::world_size])
            assert torch.equal(shards[rank][step].labels, batch.labels[rank::world_size])


@given(world_size=st.integers(1, 32))
def test_the_gradients_of_the_ranks_have_that_of_one_process_as_their_mean(world_size):
    """Also where their shards are not equally large."""
    model = WORKLOAD.make_model(3).double().eval()

    def loss_and_gradient(rank, world_size):
        model.zero_grad()
        loss = WORKLOAD.backward(model, next(WORKLOAD.batches(1, 0, rank, world_size)), world_size)
        return loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    losses, gradients = zip(*(loss_and_gradient(rank, world_size) for rank in range(world_size)), strict=True)
    loss, gradient = loss_and_gradient(0, 1)
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.stack(gradients).mean(0), gradient)


def epoch_bytes(seed, epoch):
    return b"".join(batch.tokens.numpy().tobytes() for batch in WORKLOAD.batches(seed, epoch, 0, 1))


def test_the_order_is_a_function_of_seed_and_epoch():
    assert epoch_bytes(1, 0) == epoch_bytes(1, 0)
    assert len({epoch_bytes(seed, epoch) for seed in range(3) for epoch in range(3)}) == 9


def test_an_epoch_repeats_no_sequence():
    tokens, _ = make_split(a_text_task(train_size=192), "train")
    assert len(np.unique(tokens, axis=0)) == 192
    workload = make_workload(a_text_task(train_size=192))
    seen = torch.cat([batch.tokens for batch in workload.batches(0, 0, 0, 1)])
    assert sorted(seen.tolist()) == sorted(tokens.tolist())


def weights(seed):
    return torch.cat([parameter.detach().flatten() for parameter in WORKLOAD.make_model(seed).parameters()])


def test_initial_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    first = weights(7)
    torch.manual_seed(2)
    assert torch.equal(first, weights(7))
    assert not torch.equal(first, weights(8))


def test_models_and_batches_leave_the_global_generators_alone():
    torch.manual_seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    make_workload(a_text_task()).make_model(7)
    list(WORKLOAD.batches(7, 0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numpy_before


def test_the_loss_is_the_mean_over_the_shard():
    model, batch = WORKLOAD.make_model(0).eval(), next(WORKLOAD.batches(0, 0, 0, 1))
    log_p = torch.log_softmax(model(batch.tokens), dim=1)
    naive = -sum(row[label] for row, label in zip(log_p, batch.labels, strict=True)) / 32
    torch.testing.assert_close(WORKLOAD.loss(model, batch), naive)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_the_evaluations_of_the_ranks_add_up(split, world_size):
    model = WORKLOAD.make_model(0)
    whole = WORKLOAD.evaluate(model, split, 0, 1)
    shares = [WORKLOAD.evaluate(model, split, rank, world_size) for rank in range(world_size)]
    assert sum(share.n for share in shares) == whole.n == getattr(WORKLOAD.settings, f"{split}_size")
    assert sum(share.n_correct for share in shares) == whole.n_correct
    assert sum(share.loss_sum for share in shares) == pytest.approx(whole.loss_sum, rel=1e-6)


def test_evaluation_in_pieces_equals_evaluation_at_once(monkeypatch):
    model = WORKLOAD.make_model(0)
    whole = WORKLOAD.evaluate(model, "test", 0, 1)
    monkeypatch.setattr("qsgd_ray.workloads.text._EVALUATION_BATCH", 10)
    pieces = WORKLOAD.evaluate(model, "test", 0, 1)
    assert (pieces.n, pieces.n_correct) == (whole.n, whole.n_correct)
    assert pieces.loss_sum == pytest.approx(whole.loss_sum, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_drops_nothing_and_puts_the_mode_back(training):
    model = WORKLOAD.make_model(0).train(training)
    assert WORKLOAD.evaluate(model, "test", 0, 1) == WORKLOAD.evaluate(model, "test", 0, 1)
    assert model.training is training
    WORKLOAD.loss(model, next(WORKLOAD.batches(0, 0, 0, 1))).backward()


def test_evaluation_of_an_empty_share_is_zero_of_zero():
    nothing = make_workload(a_text_task(test_size=1)).evaluate(WORKLOAD.make_model(0), "test", 1, 2)
    assert (nothing.loss_sum, nothing.n_correct, nothing.n) == (0.0, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WORKLOAD.batches(0, 0, 0, 33), r"world_size: got 33; allowed: at most batch_size \(32\)"),
        (lambda: WORKLOAD.batches(0, 0, 2, 2), "rank: got 2 of world_size 2; allowed: 0 <= rank < world_size"),
        (lambda: WORKLOAD.evaluate(WORKLOAD.make_model(0), "test", -1, 2), "rank: got -1 of world_size 2"),
        (lambda: WORKLOAD.evaluate(WORKLOAD.make_model(0), "train", 0, 1), "split: got 'train'; allowed: 'validation'"),
    ],
)
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(StudyError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 99, "train_size": 50}, "batch_size <= train_size; got 99 and 50"),
        (
            {"family": "match", "n_classes": 9, "length": 9},
            "n_classes at most vocabulary and length - 1 for family match; got 9 with vocabulary 12 and length 9",
        ),
        ({"vocabulary": 5}, "got 5; allowed: greater than or equal to 6"),
    ],
)
def test_a_task_that_cannot_be_made_is_refused_at_birth(fields, message):
    arms = [{"name": "adamw"}]
    search, confirm = {"trials_per_arm": 1, "epochs": 2}, {"seeds": [1], "epochs": 1}
    tree = {"name": "s", "question": "?", "arms": arms, "baseline": "adamw", "search": search, "confirm": confirm}
    with pytest.raises(StudyError, match=message) as error:
        study_from_tree(tree | {"decision": {"margin": 0.1}, "workload": fields})
    assert str(error.value).startswith("workload")
    assert "\n" not in str(error.value)
