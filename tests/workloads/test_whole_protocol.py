"""A class that implements the whole protocol by itself trains like any other, and what it lacks is one line."""

import pytest
import torch
from support.trainings import small_trial, without_times
from torch import nn

from qsgd_ray.config import OwnTask, TextTask
from qsgd_ray.execution.train_group import _poll_s
from qsgd_ray.optimizer.schedules import CONSTANT_RATE
from qsgd_ray.outcome import Ending, Evaluation, Work
from qsgd_ray.training.loop import run, train
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")


class Bowl:
    """The distance of a point to the origin, in steps without data."""

    steps_per_epoch, scales_loss, matmul_dtype = 5, False, torch.float32
    rate, clip_norm = CONSTANT_RATE, None

    def __init__(self, settings, device):
        self.settings = settings

    def make_model(self, seed):
        model = nn.Linear(1, 3, bias=False)
        with torch.no_grad():
            model.weight.normal_(generator=torch.Generator().manual_seed(seed))
        return model

    def batches(self, seed, epoch, rank, world_size, start=0):
        yield from range(start, self.steps_per_epoch)

    def backward(self, model, batch, world_size, backward=torch.Tensor.backward):
        loss = model(torch.ones(1)).square().sum()
        backward(loss)
        return loss.detach()

    def work(self, batch, world_size):
        return Work(0)

    def evaluate(self, model, split, rank, world_size):
        with torch.no_grad():
            loss = model(torch.ones(1)).square().sum().item()
        return Evaluation(loss, None, 1, {"accuracy": (float(loss < 1), 1.0)})

    def answers(self, model, rank, world_size):
        return None


class Whole(OwnTask):
    """A task with a workload of its own."""

    lacks: str = ""
    slow: bool = False

    @property
    def has_long_steps(self):
        return self.slow

    def workload(self, device):
        made = Bowl(self if self.lacks != "settings" else TextTask(), device)
        if self.lacks == "all":
            return torch.zeros(1)
        return made


def trained(task):
    return run(train(small_trial(workload=task), make_workload(task), None), lambda _: False)


def test_it_trains_and_repeats():
    first, second = trained(Whole()), trained(Whole())
    assert first.ending is Ending.COMPLETED
    assert [without_times(m) for m in first.measurements] == [without_times(m) for m in second.measurements]
    assert first.measurements[-1].validation_loss < first.measurements[0].validation_loss


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("all", "workload: got a Tensor without answers, batches, .*; allowed: the protocol Workload"),
        ("settings", "workload: got one whose settings are not the task's; allowed: those that it was made from"),
    ],
)
def test_what_it_lacks_is_one_line(lacks, said):
    with pytest.raises(ValueError, match=said):
        make_workload(Whole(lacks=lacks))


def test_it_says_itself_how_long_its_steps_are():
    assert _poll_s(small_trial(workload=Whole(slow=True))) > _poll_s(small_trial(workload=Whole()))
