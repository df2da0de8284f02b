"""A workload is what its protocol says: the smallest one trains through the loop, and ranks are checked."""

import doctest

import pytest
import torch
from support.trainings import small_trial, without_times
from torch import nn

from qsgd_ray import workloads
from qsgd_ray.config import StudyError
from qsgd_ray.optimizer.schedules import CONSTANT_RATE
from qsgd_ray.outcome import Ending, Evaluation, Work
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads.protocol import Workload, check_rank

pytestmark = pytest.mark.usefixtures("one_thread")


class Signs:
    """The sign of a sum of two numbers, learned by one linear layer: 8 batches of 4, and 20 points held out."""

    steps_per_epoch, scales_loss, matmul_dtype = 8, False, torch.float32
    settings, rate, clip_norm = None, CONSTANT_RATE, None

    def __init__(self):
        self.points = torch.randn(52, 2, generator=torch.Generator().manual_seed(1))
        self.labels = (self.points.sum(1) > 0).long()

    def make_model(self, seed):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return nn.Linear(2, 2)

    def batches(self, seed, epoch, rank, world_size, start=0):
        check_rank(rank, world_size)
        order = torch.randperm(32, generator=torch.Generator().manual_seed(1000 * seed + epoch))
        yield from order.view(8, 4)[start:, rank::world_size]

    def backward(self, model, batch, world_size, backward=torch.Tensor.backward):
        loss = nn.functional.cross_entropy(model(self.points[batch]), self.labels[batch])
        backward(loss * (len(batch) * world_size / 4))
        return loss.detach()

    def work(self, batch, world_size):
        return Work(n_tokens=0)

    @torch.no_grad()
    def evaluate(self, model, split, rank, world_size):
        points, labels = self.points[32 + rank :: world_size], self.labels[32 + rank :: world_size]
        loss_sum = nn.functional.cross_entropy(model(points), labels, reduction="sum").item()
        return Evaluation(loss_sum, int((model(points).argmax(1) == labels).sum()), len(labels))

    def answers(self, model, rank, world_size):
        return None


def test_a_class_of_thirty_lines_trains_and_repeats():
    workload: Workload = Signs()
    first, second = (run(train(small_trial(epochs=5), workload, None), lambda _: False) for _ in range(2))
    assert first.ending is Ending.COMPLETED
    assert [without_times(m) for m in first.measurements] == [without_times(m) for m in second.measurements]
    losses = [measurement.validation_loss for measurement in first.measurements]
    assert losses == sorted(losses, reverse=True)
    assert first.answers is None
    assert first.measurements[-1].n_tokens is None


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_that_does_not_exist_is_refused(rank, world_size):
    with pytest.raises(StudyError, match=f"rank: got {rank} of world_size {world_size}; allowed: 0 <= rank"):
        check_rank(rank, world_size)


def test_the_example_runs():
    results = doctest.testmod(workloads)
    assert (results.failed, results.attempted > 0) == (0, True)
