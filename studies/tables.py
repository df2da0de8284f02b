"""Ask of a real table whether anything beats a tuned AdamW: a wider model, dropout, or another optimizer.

The table is the RAND Health Insurance Experiment as statsmodels carries it, so nothing is downloaded: 20,190 person
years, nine facts about insurance and health, and how often the person saw a doctor. The model predicts the rate of
visits; what decides is the Poisson loss on held-out rows, which is minimised, in nats a person year.

One dial, `--set scale=`. `short` runs in a minute and shows that all of it runs. `laptop` takes some minutes on two
cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qsgd_ray.config import (
    Arm,
    Confirm,
    Decision,
    Groups,
    LogUniform,
    Metric,
    Optimizer,
    Search,
    Splits,
    Study,
    SupervisedTask,
    Uniform,
)


class Visits(SupervisedTask):
    """Visits to a doctor in a year, from insurance and health; a network of two hidden layers gives their rate.

    Attributes:
        n_train: rows that are trained on; validation and test have 4,000 each.
        width: units of a hidden layer.
        dropout: share of hidden units that a step leaves out.
    """

    n_train: int = 8000
    width: int = 32
    dropout: float = 0.0
    batch_size: int = 256

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The loss, which decides, and the mean error in visits."""
        return (Metric("loss", direction="min", unit="nats"), Metric("error", direction="min", unit="visits"))

    def data(self, generator: torch.Generator) -> Splits:
        """Return the rows in an order drawn by name; columns have mean 0 and deviation 1 over the training rows."""
        from statsmodels.datasets import randhie

        table = torch.tensor(randhie.load_pandas().data.to_numpy(), dtype=torch.float32)
        table = table[torch.randperm(len(table), generator=generator)]
        train, validation, test = table[: self.n_train], table[-8000:-4000], table[-4000:]
        mean, deviation = train[:, 1:].mean(dim=0), train[:, 1:].std(dim=0)
        return Splits(*(((part[:, 1:] - mean) / deviation, part[:, 0]) for part in (train, validation, test)))

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        """Return a network whose one output is the logarithm of the rate."""
        return torch.nn.Sequential(
            torch.nn.Linear(9, self.width),
            torch.nn.ReLU(),
            torch.nn.Dropout(self.dropout),
            torch.nn.Linear(self.width, self.width),
            torch.nn.ReLU(),
            torch.nn.Dropout(self.dropout),
            torch.nn.Linear(self.width, 1),
            torch.nn.Flatten(0),
        )

    def loss(self, model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the mean negative log likelihood of the visits under Poisson's law."""
        x, y = batch
        # e^5 visits are twice as many as anybody in the table has; beyond, a first large step would overflow.
        log_rate = model(x).clamp(max=5.0)
        return (log_rate.exp() - y * log_rate + torch.lgamma(y + 1)).mean()

    def metrics(self, model: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, tuple]:
        """Return the sum of absolute errors and the number of rows."""
        x, y = batch
        return {"error": ((model(x).clamp(max=5.0).exp() - y).abs().sum(), len(y))}


RATE = LogUniform(low=1e-4, high=1e-1)
DECAY = LogUniform(low=1e-4, high=1.0)
ADAMW = Optimizer("adamw", lr=RATE, weight_decay=DECAY)
ARMS = (
    Arm(name="adamw", optimizer=ADAMW),
    Arm(name="wide", optimizer=ADAMW, workload={"width": 128}),
    Arm(name="dropout", optimizer=ADAMW, workload={"dropout": Uniform(low=0.01, high=0.5)}),
    Arm(
        name="muon",
        optimizer=Groups(
            matrices=Optimizer("torch.optim.Muon", lr=RATE, weight_decay=DECAY), rest=Optimizer("adamw", lr=RATE)
        ),
    ),
    Arm(name="sgd", optimizer=Optimizer("sgd", lr=RATE, weight_decay=DECAY, momentum=0.9, schedule="cosine")),
)


@dataclass(frozen=True)
class Size:
    """One size of the study.

    Attributes:
        n_train: rows that are trained on.
        trials_per_arm: searched points of an arm.
        epochs: epochs of a trial.
        seeds: number of paired seeds of the confirmation.
    """

    n_train: int
    trials_per_arm: int
    epochs: int
    seeds: int


SIZES = {
    "short": Size(n_train=2000, trials_per_arm=3, epochs=4, seeds=5),
    "laptop": Size(n_train=8000, trials_per_arm=16, epochs=16, seeds=15),
}
DEFAULT = "short"


def study_of(name: str, size: Size) -> Study:
    """Return the study at one size."""
    return Study(
        name="tables" if name == DEFAULT else f"tables_{name}",
        question="On a real table, does a wider model, dropout or another optimizer beat a tuned AdamW?",
        workload=Visits(n_train=size.n_train),
        arms=ARMS,
        baseline="adamw",
        search=Search(
            trials_per_arm=size.trials_per_arm, epochs=size.epochs, grace_epochs=2, reduction_factor=2, seeds=(1,)
        ),
        confirm=Confirm(seeds=tuple(range(101, 101 + size.seeds)), epochs=size.epochs, workers=1),
        # A hundredth of a nat is a likelihood ratio of e^40 over the 4,000 test rows, and half a percent of the loss.
        decision=Decision(metric="loss", margin=0.01),
    )


SCALES = {name: study_of(name, size) for name, size in SIZES.items()}
STUDY = SCALES[DEFAULT]
