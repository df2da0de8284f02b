"""Objectives without data, sequences and generative models train from their bases; their defaults are what they say."""

import math

import pytest
import torch
from support.trainings import small_trial, without_times
from torch import nn

from qsgd_ray.config import Arm, GenerativeTask, ObjectiveTask, OwnTask, SequenceTask, Splits, StudyError
from qsgd_ray.outcome import Ending
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")


class Chain(ObjectiveTask):
    """Energy of a spin chain in random fields, of product states that a model chooses from the fields."""

    batch_size: int = 8
    steps_per_epoch: int = 10
    n_held_out: int = 9
    n_spins: int = 4

    def instances(self, generator, n):
        return torch.randn(n, self.n_spins, generator=generator)

    def model(self, generator):
        return nn.Linear(self.n_spins, self.n_spins)

    def objective(self, model, instances):
        spins = model(instances).tanh()
        return (-(spins[:, 1:] * spins[:, :-1]).sum(1) - (instances * spins).sum(1)).mean()


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.randn(3))

    def forward(self, instances):
        return self.x.square().sum() + 0 * instances.sum()


class Bowl(ObjectiveTask):
    """One fixed problem."""

    steps_per_epoch: int = 20

    def model(self, generator):
        return Point()

    def objective(self, model, instances):
        return model(instances)


class Counting(SequenceTask):
    """Sequences that count up, filled up by zeros."""

    batch_size: int = 16
    pad_token: int = 0

    def data(self, generator):
        def part(n):
            start = torch.randint(1, 4, (n, 1), generator=generator)
            tokens = start + torch.arange(6)
            lengths = torch.randint(3, 7, (n, 1), generator=generator)
            return torch.where(torch.arange(6) < lengths, tokens, 0)

        return Splits(part(64), part(32), part(32))

    def model(self, generator):
        return nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10))


class Denoiser(GenerativeTask):
    """A denoiser whose loss draws its noise from torch's global generator."""

    batch_size: int = 16

    def data(self, generator):
        return Splits(*(torch.randn(n, 2, generator=generator) for n in (64, 32, 32)))

    def model(self, generator):
        return nn.Linear(2, 2)

    def loss(self, model, batch):
        return (model(batch + torch.randn_like(batch)) - batch).square().mean()


def trained(task, epochs=3, seed=7):
    trial = small_trial(workload=task, epochs=epochs, seed=seed, arm=Arm(name="a", learning_rate=3e-2))
    return run(train(trial, make_workload(task), None), lambda _: False)


@pytest.mark.parametrize("task", [Chain(), Bowl(), Counting(), Denoiser()], ids=lambda task: type(task).__name__)
def test_it_trains_and_repeats_to_the_bit(task):
    first, second = trained(task), trained(task)
    assert first.ending is Ending.COMPLETED
    assert [without_times(m) for m in first.measurements] == [without_times(m) for m in second.measurements]
    assert first.measurements[-1].validation_loss < first.measurements[0].validation_loss
    assert (first.test_accuracy is None) == (type(task) is not Counting)
    assert first.test_metrics is None


def test_instances_are_drawn_by_step_and_ranks_share_them():
    workload = make_workload(Chain())
    assert workload.steps_per_epoch == 10
    whole = [batch.items for batch in workload.batches(3, 2)]
    assert not torch.equal(whole[0], whole[1])
    rest = [batch.items for batch in workload.batches(3, 2, start=7)]
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], rest, strict=True))
    parts = [[batch.items for batch in workload.batches(3, 2, rank, 2)] for rank in range(2)]
    assert all(torch.equal(w[rank::2], part[s]) for s, w in enumerate(whole) for rank, part in enumerate(parts))
    other = next(iter(workload.batches(4, 2))).items
    assert not torch.equal(other, whole[0])


def test_the_loss_of_a_sequence_is_the_mean_over_its_own_tokens():
    task, workload = Counting(), make_workload(Counting())
    model = workload.make_model(1)
    tokens = torch.tensor([[1, 2, 3, 0, 0], [2, 3, 4, 5, 6]])
    log_p = model(tokens).log_softmax(-1)
    first = -(log_p[0, 0, 2] + log_p[0, 1, 3]) / 2
    second = -(log_p[1, 0, 3] + log_p[1, 1, 4] + log_p[1, 2, 5] + log_p[1, 3, 6]) / 4
    assert math.isclose(task.loss(model, tokens).item(), (first + second).item() / 2, rel_tol=1e-6)
    right, n = task.metrics(model, tokens)["accuracy"]
    assert (0 <= right <= 6, int(n)) == (True, 6)
    unpadded = Counting(pad_token=99)
    assert unpadded.metrics(model, tokens)["accuracy"][1] == 8


def test_noise_of_an_evaluation_is_the_same_every_time_and_moves_no_generator():
    workload = make_workload(Denoiser())
    model, state = workload.make_model(1), torch.get_rng_state()
    first, second = (workload.evaluate(model, "validation") for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert workload.evaluate(model, "test").loss_sum != first.loss_sum


class Few(Chain):
    def instances(self, generator, n):
        return torch.randn(n - 1, self.n_spins, generator=generator)


class Bare(OwnTask):
    pass


class NoLoss(GenerativeTask):
    data, model = Denoiser.data, Denoiser.model


class NoObjective(ObjectiveTask):
    def model(self, generator):
        return Point()


def test_what_a_base_needs_and_lacks_is_refused_in_one_line():
    with pytest.raises(ValueError, match="instances: got 8; allowed: 9, as many as are asked for"):
        make_workload(Few())
    with pytest.raises(StudyError, match=r"got .*:Bare; allowed: a class derived from SupervisedTask or ObjectiveTask"):
        make_workload(Bare())
    with pytest.raises(StudyError, match="NoLoss: a class with a method loss; NoLoss has none"):
        NoLoss()
    with pytest.raises(StudyError, match="NoObjective: a class with a method objective; NoObjective has none"):
        NoObjective()
    with pytest.raises(StudyError, match=r"Chain.steps_per_epoch: got 0; allowed: greater than or equal to 1"):
        Chain(steps_per_epoch=0)
