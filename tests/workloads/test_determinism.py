"""A task that does not repeat itself is found before its study, and what differs is named."""

import random
import time

import numpy as np
import pytest
import torch
from support.own_tasks import Rings

from qsgd_ray.config import Splits, StudyError
from qsgd_ray.workloads.determinism import explained, require_repeatable

NAMES = {"pear", "apple", "plum", "fig", "lime", "kiwi", "nut", "date", "sloe", "haw"}


class Clock(Rings):
    def data(self, generator):
        splits = super().data(generator)
        x, y = splits.train
        return Splits((x + time.time() % 1, y), splits.validation, splits.test)


class GlobalNumpy(Rings):
    def loss(self, model, batch):
        return super().loss(model, batch) * float(np.random.rand())


class OrderOfASet(Rings):
    def model(self, generator):
        model = super().model(generator)
        with torch.no_grad():
            # Every order of so many names gives other weights.
            model[0].weight.copy_(torch.tensor([sum(map(ord, name)) for name in NAMES][:8]).reshape(4, 2))
        return model


class LateDraw(Rings):
    def metrics(self, model, batch):
        return {"accuracy": (random.random(), 1)}


class Raises(Rings):
    def model(self, generator):
        raise KeyError("no such layer")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Clock, "training data"),
        (GlobalNumpy, "loss"),
        (OrderOfASet, "initial 0.weight"),
        (LateDraw, "validation accuracy"),
    ],
)
def test_what_differs_in_a_second_process_is_named(kind, what):
    line = f"workload: got .*:{kind.__name__}, whose {what} differs in a second process; allowed: draws from the gen"
    with pytest.raises(StudyError, match=line):
        require_repeatable([kind()])


def test_a_task_that_repeats_itself_passes_and_no_generator_moves():
    before = torch.get_rng_state()
    require_repeatable([Rings(dropout=0.3), Rings(width=16)])
    require_repeatable([])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_of_the_user_s_code_is_one_line_with_the_user_s_line():
    with pytest.raises(StudyError, match=r"^workload: test_determinism.py, line \d+, in model: KeyError: 'no such lay"):
        require_repeatable([Raises()])


def test_what_a_class_returned_wrong_is_told_by_its_method():
    line = str(explained(Rings(), ValueError("loss: got a float; allowed: one real number")))
    assert line == "workload: support.own_tasks:Rings.loss: got a float; allowed: one real number"
    assert str(explained(Rings(), StudyError("batch_size: got 3"))) == "batch_size: got 3"
