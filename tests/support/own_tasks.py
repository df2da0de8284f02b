"""Tasks of one's own for tests: two rings told apart, and a line that is fitted with metrics of its own."""

from __future__ import annotations

import math

import torch
from torch import nn

from qsgd_ray.config import Metric, Splits, SupervisedTask

# The name of a module beside it, of which a study file of tests imports a number.
BESIDE = "hidden_width"


class Rings(SupervisedTask):
    """Points on two rings; a classifier of one hidden layer."""

    noise: float = 0.1
    width: int = 8
    n_train: int = 64
    dropout: float = 0.0

    def data(self, generator):
        def part(n):
            y = torch.randint(2, (n,), generator=generator)
            angle = 2 * math.pi * torch.rand(n, generator=generator)
            radius = 1 + y + self.noise * torch.randn(n, generator=generator)
            return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), y

        return Splits(part(self.n_train), part(37), part(41))

    def model(self, generator):
        return nn.Sequential(
            nn.Linear(2, 4),
            nn.Tanh(),
            nn.Dropout(self.dropout),
            nn.Linear(4, self.width),
            nn.Tanh(),
            nn.Linear(self.width, 3),
            nn.Linear(3, 2),
        )


class Line(SupervisedTask):
    """A line fitted by least squares; its metrics are an error, a count and a share, and no accuracy."""

    batch_size: int = 16
    slope: float = 2.0

    @property
    def measured(self):
        return (
            Metric("mse", direction="min", unit="m2"),
            Metric("n_far", direction="min", kind="sum"),
            Metric("near", kind="share"),
        )

    def data(self, generator):
        def part(n):
            x = torch.randn(n, 1, generator=generator)
            return torch.utils.data.TensorDataset(x, self.slope * x + 0.1 * torch.randn(n, 1, generator=generator))

        return Splits(part(48), part(21), part(23))

    def model(self, generator):
        return nn.Linear(1, 1)

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()

    def metrics(self, model, batch):
        x, y = batch
        squares = (model(x) - y).square().flatten()
        near = (squares < 1.0).sum()
        return {"mse": (squares.sum(), len(x)), "n_far": (len(x) - near, 1), "near": (near, len(x))}


STUDY_FILE = f'''"""A study of a class that stands in its own file, with a module beside it."""

import torch
from {BESIDE} import WIDTH

from qsgd_ray.config import *

RATE = LogUniform(low=1e-3, high=1e-1)


class Rings(SupervisedTask):
    """Points on two rings."""

    width: int = WIDTH
    fails_at: int = -1

    def data(self, generator):
        # drawn by name
        def part(n):
            y = torch.randint(2, (n,), generator=generator)
            angle = 6.3 * torch.rand(n, generator=generator)
            x = (1 + y)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
            return x, y

        return Splits(part(64), part(32), part(32))

    def model(self, generator):
        if self.width == self.fails_at:
            raise RuntimeError("no model of this width")
        return torch.nn.Sequential(torch.nn.Linear(2, self.width), torch.nn.Tanh(), torch.nn.Linear(self.width, 2))


STUDY = Study(
    name="rings",
    question="Is a wider model better?",
    workload=Rings(),
    arms=(
        Arm(name="adamw", learning_rate=RATE),
        Arm(name="wide", learning_rate=RATE, workload={{"width": 16}}),
    ),
    baseline="adamw",
    search=Search(trials_per_arm=2, epochs=2),
    confirm=Confirm(seeds=(101, 102), epochs=2, workers=1),
    decision=Decision(margin=0.01),
)
'''


def write_study(folder, name="rings_study", change=lambda text: text, width=8):
    """Write the study file, changed, and the module beside it into a folder; return the file's path."""
    (folder / f"{BESIDE}.py").write_text(f"WIDTH = {width}\n")
    path = folder / f"{name}.py"
    path.write_text(change(STUDY_FILE))
    return path
