"""A task of one's own trains like a shipped one: paired, repeatable, shared by ranks; what it returns is checked."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.own_tasks import Line, Rings
from support.trainings import small_trial, without_times
from torch import nn

from qsgd_ray.config import Arm, Metric, Splits, StoredTask, StudyError
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload
from qsgd_ray.workloads.supervised import SupervisedWorkload

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(task, seed=7, epochs=6, rate=3e-2):
    trial = small_trial(workload=task, seed=seed, epochs=epochs, arm=Arm(name="a", learning_rate=rate))
    return run(train(trial, make_workload(task), None), lambda _: False)


def test_it_learns_and_repeats_to_the_bit():
    first, second = trained(Rings(dropout=0.2)), trained(Rings(dropout=0.2))
    assert first.ending is Ending.COMPLETED
    assert first.parameters_sha256 == second.parameters_sha256
    assert [without_times(m) for m in first.measurements] == [without_times(m) for m in second.measurements]
    assert first.measurements[-1].validation_loss < first.measurements[0].validation_loss
    assert first.test_accuracy is not None
    assert first.measurements[-1].metrics is None
    assert trained(Rings(), seed=8).parameters_sha256 != trained(Rings(), seed=7).parameters_sha256


def test_metrics_of_its_own_stand_beside_the_loss_and_accuracy_is_none():
    outcome = trained(Line())
    last = outcome.measurements[-1]
    assert last.validation_accuracy is None
    assert outcome.test_accuracy is None
    assert [*last.metrics] == [*outcome.test_metrics] == ["mse", "n_far", "near"]
    assert last.metrics["mse"] == pytest.approx(last.validation_loss, rel=1e-6)
    assert last.metrics["n_far"] == pytest.approx(21 * (1 - last.metrics["near"]))
    assert outcome.first_reaching(0.5) is None


@settings(max_examples=12)
@given(world_size=st.integers(1, 4), task=st.sampled_from([Rings(batch_size=16), Line()]))
def test_shares_of_ranks_add_up_to_the_whole(world_size, task):
    workload = make_workload(task)
    model = workload.make_model(1)
    whole = workload.evaluate(model, "validation", 0, 1)
    shares = [workload.evaluate(model, "validation", rank, world_size) for rank in range(world_size)]
    assert sum(share.n for share in shares) == whole.n
    assert math.isclose(sum(share.loss_sum for share in shares), whole.loss_sum, rel_tol=1e-5)
    for name, (total, count) in whole.sums.items():
        assert math.isclose(sum(share.sums[name][0] for share in shares), total, rel_tol=1e-5, abs_tol=1e-9)
        if task.measured[0].name != "mse" or name != "n_far":
            assert (count is None) == (shares[0].sums[name][1] is None)


def test_a_rank_without_a_share_calls_the_model_and_counts_nothing():
    workload = make_workload(Line())
    model, calls = workload.make_model(1), []
    model.register_forward_hook(lambda *_: calls.append(1))
    empty = workload.evaluate(model, "validation", 29, 30)
    assert (empty.n, empty.loss_sum, len(calls)) == (0, 0.0, 2)


@settings(max_examples=10)
@given(world_size=st.sampled_from([2, 4]), task=st.sampled_from([Rings(batch_size=16), Line()]))
def test_gradients_of_ranks_are_those_of_one_process(world_size, task):
    workload = make_workload(task)

    def gradient(rank, size):
        model = workload.make_model(3)
        loss = workload.backward(model, next(iter(workload.batches(3, 1, rank, size))), size)
        return loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    loss, whole = gradient(0, 1)
    parts = [gradient(rank, world_size) for rank in range(world_size)]
    torch.testing.assert_close(sum(part for _, part in parts) / world_size, whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sum(one for one, _ in parts) / world_size, loss, rtol=1e-5, atol=1e-6)


def test_a_training_that_continues_sees_the_batches_that_it_would_have_seen():
    workload = make_workload(Rings(batch_size=8))
    whole = [batch.items[0] for batch in workload.batches(1, 2)]
    rest = [batch.items[0] for batch in workload.batches(1, 2, start=5)]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
    assert workload.steps_per_epoch == len(whole) == 8


@pytest.mark.parametrize("widths", [(8, 16), (8, 9), (1, 64)])
def test_arms_that_differ_in_width_share_data_order_and_the_layers_that_they_share(widths):
    narrow, wide = (make_workload(Rings(width=width)) for width in widths)
    for left, right in zip(narrow.batches(5, 1), wide.batches(5, 1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left.items, right.items, strict=True))
    left, right = narrow.make_model(5), wide.make_model(5)
    assert torch.equal(left[0].weight, right[0].weight)
    assert torch.equal(left[0].bias, right[0].bias)
    # The last layer has one shape in both, though layers of other shapes were drawn before it.
    assert torch.equal(left[6].weight, right[6].weight)


def test_no_global_generator_moves():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    workload = make_workload(Rings())
    model = workload.make_model(1)
    list(workload.batches(1, 1))
    workload.evaluate(model, "test")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


class Items(torch.utils.data.Dataset):
    """Items as dicts."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return {"x": torch.tensor([float(index), 1.0]), "y": index % 2}


class Dicts(Rings):
    def data(self, generator):
        return Splits(Items(32), Items(9), Items(7))

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def metrics(self, model, batch):
        return {"accuracy": ((model(batch["x"]).argmax(1) == batch["y"]).sum(), len(batch["y"]))}


def test_data_sets_are_put_together_by_torch():
    workload = make_workload(Dicts())
    batch = next(iter(workload.batches(1, 1)))
    assert batch.items["x"].shape == (32, 2)
    assert workload.evaluate(workload.make_model(1), "test").n == 7
    assert trained(Dicts(), epochs=1).ending is Ending.COMPLETED


class Arrays(Rings):
    def data(self, generator):
        x = np.ones((40, 2), dtype=np.float32)
        return Splits((x, np.zeros(40, dtype=np.int64)), (x, torch.zeros(40).long()), (x[:5], np.zeros(5, dtype=int)))


class OneTensor(Rings):
    def data(self, generator):
        return Splits(torch.ones(40, 2), torch.ones(9, 2), torch.ones(9, 2))

    def loss(self, model, batch):
        return model(batch).square().mean()

    def metrics(self, model, batch):
        return {"accuracy": (0, len(batch))}


def test_arrays_and_one_tensor_are_data():
    assert trained(Arrays(), epochs=1).ending is Ending.COMPLETED
    assert trained(OneTensor(), epochs=1).ending is Ending.COMPLETED


def changed(**methods):
    """Return a workload of a task whose methods return something else."""
    task = Rings()
    for name, method in methods.items():
        object.__setattr__(task, name, method)
    return SupervisedWorkload(task)


def splits(**parts):
    ones = (torch.ones(40, 2), torch.ones(40).long())
    return lambda generator: Splits(**{"train": ones, "validation": ones, "test": ones} | parts)


WRONG_DATA = [
    (lambda generator: None, "data: got a NoneType; allowed: Splits(train, validation, test)"),
    (splits(test=(torch.ones(0, 2), torch.ones(0))), "data: got no items as test; allowed: at least one"),
    (splits(train=(torch.ones(4, 2), torch.ones(3))), "data: got train tensors of [4, 3] items; allowed: of the same"),
    (splits(train=3), "data: got a int as train; allowed: a Dataset with a length, or a tuple of tensors"),
    (splits(train=torch.tensor(1.0)), "data: got no items as train"),
    (splits(train=(torch.ones(4, 2),)), "batch_size: got 32; allowed: at most the 4 items of the training data"),
]


@pytest.mark.parametrize(("data", "line"), WRONG_DATA, ids=[line[:36] for _, line in WRONG_DATA])
def test_data_that_cannot_be_used_are_refused_in_one_line(data, line):
    with pytest.raises(ValueError) as error:
        changed(data=data)
    assert str(error.value).startswith(line)


def frozen(generator):
    return nn.Linear(2, 2).requires_grad_(False)


WRONG_MODELS = [
    (lambda generator: None, "model: got a NoneType; allowed: a torch.nn.Module"),
    (frozen, "model: got no parameter that needs a gradient; allowed: at least one"),
    (lambda generator: nn.Linear(2, 2, device="meta"), "model: got weight on meta; allowed: the CPU"),
]


@pytest.mark.parametrize(("model", "line"), WRONG_MODELS, ids=[line[:36] for _, line in WRONG_MODELS])
def test_models_that_cannot_be_trained_are_refused_in_one_line(model, line):
    with pytest.raises(ValueError) as error:
        changed(model=model).make_model(1)
    assert str(error.value).startswith(line)


WRONG_LOSSES = [
    (lambda model, batch: 1.0, "loss: got a float; allowed: one real number"),
    (lambda model, batch: model(batch[0]), "loss: got a tensor of shape (32, 2); allowed: one real number"),
    (lambda model, batch: torch.tensor(1), "loss: got a tensor of shape (); allowed: one real number"),
    (lambda model, batch: torch.tensor(1.0), "loss: got a scalar without a gradient; allowed: one that depends"),
]


@pytest.mark.parametrize(("loss", "line"), WRONG_LOSSES, ids=[line[:36] for _, line in WRONG_LOSSES])
def test_losses_that_are_none_are_refused_in_one_line(loss, line):
    workload = changed(loss=loss)
    with pytest.raises(ValueError) as error:
        workload.backward(workload.make_model(1), next(iter(workload.batches(1, 1))))
    assert str(error.value).startswith(line)


WRONG_METRICS = [
    ({"acc": (1, 2)}, "metrics: got acc; allowed: accuracy, as measured names them"),
    (None, "metrics: got no metric; allowed: accuracy, as measured names them"),
    ({}, "metrics: got no metric; allowed: accuracy, as measured names them"),
    (0.5, "metrics: got a float; allowed: accuracy, as measured names them"),
    ({"accuracy": 0.5}, "metrics: got 0.5 as accuracy; allowed: a sum and a count"),
    ({"accuracy": ("a", 2)}, "metrics: got ('a', 2) as accuracy; allowed: a sum and a count"),
    ({"accuracy": (3, 2)}, "metrics: got (3.0, 2.0) as accuracy; allowed: 0 <= sum <= count, as it is a share"),
]


@pytest.mark.parametrize(("values", "line"), WRONG_METRICS, ids=[line[:36] for _, line in WRONG_METRICS])
def test_metrics_that_are_none_are_refused_in_one_line(values, line):
    workload = changed(metrics=lambda model, batch: values)
    model = workload.make_model(1).train()
    with pytest.raises(ValueError) as error:
        workload.evaluate(model, "validation")
    assert str(error.value).startswith(line)
    assert model.training


def test_a_rank_or_a_split_that_does_not_exist_is_refused():
    workload = make_workload(Rings())
    with pytest.raises(StudyError, match="world_size: got 33; allowed: at most batch_size"):
        workload.batches(1, 1, 0, 33)
    with pytest.raises(StudyError, match="split: got 'train'; allowed: 'validation' or 'test'"):
        workload.evaluate(workload.make_model(1), "train")


def test_a_class_that_is_not_there_or_has_other_code_is_refused(monkeypatch):
    task = Rings()
    stored = StoredTask.model_validate(task.model_dump(mode="json"))
    with pytest.raises(
        StudyError, match=f"workload: got support.own_tasks:Rings with code {task.code}, which is not l"
    ):
        make_workload(stored)
    object.__setattr__(task, "_code", "0123456789")
    with pytest.raises(StudyError, match="in this process; allowed: 0123456789, as the study has it"):
        make_workload(task)


class Nan(Line):
    @property
    def measured(self):
        return (Metric("odd"), Metric("never"))

    def metrics(self, model, batch):
        return {"odd": (float("nan"), 1), "never": (0, 0)}


def test_a_metric_without_a_finite_value_is_none():
    assert trained(Nan(), epochs=1).measurements[0].metrics == {"odd": None, "never": None}
