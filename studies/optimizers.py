"""Ask seven optimizers whether they beat a tuned AdamW, each on three small tasks, with two arms that check the judge.

`pip install 'qsgd-ray[optimizers]'` brings those that torch has not. Every arm tunes its learning rate and its weight
decay with the same budget. Two arms say whether such a verdict can be believed: `adamw-again` is the baseline under
another name, searched anew with points of its own, and must not come out better or worse; `too-slow` is AdamW with a
rate fixed thirty times too small, and must come out worse.

The tasks need no download: points on two spirals, drawn digits of seven segments for a convolution, and a survey of
6,366 women that statsmodels carries (R. C. Fair, 1978).

One dial, `--set scale=`. `short` shows in some minutes that all of it runs. `laptop` takes about ten minutes on two
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
    Optimizer,
    Perturbation,
    Search,
    Splits,
    Study,
    SupervisedTask,
)

# A digit on 9 x 5 pixels: its segments by the letters that displays call them by, each from a corner to another.
_SEGMENTS = {
    "a": (slice(0, 1), slice(0, 5)),
    "b": (slice(0, 5), slice(4, 5)),
    "c": (slice(4, 9), slice(4, 5)),
    "d": (slice(8, 9), slice(0, 5)),
    "e": (slice(4, 9), slice(0, 1)),
    "f": (slice(0, 5), slice(0, 1)),
    "g": (slice(4, 5), slice(0, 5)),
}
_DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


def _drawn(letters: str) -> torch.Tensor:
    """Return the pixels of a digit, 1 on its segments."""
    pixels = torch.zeros(9, 5)
    for letter in letters:
        pixels[_SEGMENTS[letter]] = 1.0
    return pixels


def _network(n_in: int, width: int, n_out: int) -> torch.nn.Module:
    """Return a network with two hidden layers."""
    return torch.nn.Sequential(
        torch.nn.Linear(n_in, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, n_out),
    )


class Spirals(SupervisedTask):
    """Points on two spirals, told apart by a network of two hidden layers."""

    width: int = 48
    n_train: int = 1024
    batch_size: int = 64
    target_accuracy: float = 0.9

    def data(self, generator: torch.Generator) -> Splits:
        """Return points with a little noise, half of them on either spiral."""

        def part(n: int) -> tuple[torch.Tensor, torch.Tensor]:
            y = torch.randint(2, (n,), generator=generator)
            turn = 0.3 + 1.2 * torch.rand(n, generator=generator)
            angle = 2 * torch.pi * turn + torch.pi * y
            x = turn[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
            return 2 * x + 0.1 * torch.randn(n, 2, generator=generator), y

        return Splits(train=part(self.n_train), validation=part(1024), test=part(2048))

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        """Return a network with two hidden layers."""
        return _network(2, self.width, 2)


class Segments(SupervisedTask):
    """Digits of seven segments, shifted and under noise, read by a small convolution."""

    channels: int = 8
    n_train: int = 1024
    batch_size: int = 64
    target_accuracy: float = 0.9

    def data(self, generator: torch.Generator) -> Splits:
        """Return images of 1 x 11 x 7 pixels and the digits that they show."""
        digits = torch.stack([_drawn(letters) for letters in _DIGITS])

        def part(n: int) -> tuple[torch.Tensor, torch.Tensor]:
            y = torch.randint(10, (n,), generator=generator)
            x = 0.3 * torch.randn(n, 1, 11, 7, generator=generator)
            shifts = torch.randint(9, (n,), generator=generator)
            for shift in range(9):
                chosen = shifts == shift
                down, right = divmod(shift, 3)
                x[chosen, 0, down : down + 9, right : right + 5] += digits[y[chosen]]
            return x, y

        return Splits(train=part(self.n_train), validation=part(1024), test=part(2048))

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        """Return two convolutions and a linear layer."""
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, self.channels, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(self.channels, 2 * self.channels, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(2 * self.channels * 5 * 3, 10),
        )


class Survey(SupervisedTask):
    """Answers of 6,366 married women to eight questions, and whether there was an affair."""

    width: int = 32
    n_train: int = 3072
    batch_size: int = 512
    target_accuracy: float = 0.7

    def data(self, generator: torch.Generator) -> Splits:
        """Return the answers in an order drawn by name; each has mean 0 and deviation 1 over the training rows."""
        from statsmodels.datasets import fair

        table = torch.tensor(fair.load_pandas().data.to_numpy(), dtype=torch.float32)
        table = table[torch.randperm(len(table), generator=generator)]
        train, validation, test = table[: self.n_train], table[3072:4366], table[4366:]
        mean, deviation = train[:, :8].mean(dim=0), train[:, :8].std(dim=0)
        parts = (((part[:, :8] - mean) / deviation, (part[:, 8] > 0).long()) for part in (train, validation, test))
        return Splits(*parts)

    def model(self, generator: torch.Generator) -> torch.nn.Module:
        """Return a network with two hidden layers."""
        return _network(8, self.width, 2)


TASKS = {"spirals": Spirals(), "segments": Segments(), "survey": Survey()}
RATE = LogUniform(low=1e-4, high=1e-1)
DECAY = LogUniform(low=1e-4, high=1e-1)
ADAMW = Optimizer("adamw", lr=RATE, weight_decay=DECAY)
# About what the searches choose for AdamW, over thirty.
TOO_SLOW = 1e-2 / 30
ARMS = (
    Arm(name="adamw", optimizer=ADAMW),
    Arm(name="adamw-again", optimizer=ADAMW),
    Arm(name="too-slow", optimizer=Optimizer("adamw", lr=TOO_SLOW, weight_decay=1e-2)),
    Arm(name="sgd", optimizer=Optimizer("sgd", lr=LogUniform(low=1e-3, high=1.0), weight_decay=DECAY, momentum=0.9)),
    Arm(
        name="muon",
        optimizer=Groups(
            matrices=Optimizer("torch.optim.Muon", lr=RATE, weight_decay=DECAY), rest=Optimizer("adamw", lr=RATE)
        ),
    ),
    Arm(name="lion", optimizer=Optimizer("lion", lr=LogUniform(low=1e-5, high=1e-2), weight_decay=DECAY)),
    Arm(name="soap", optimizer=Optimizer("soap", lr=RATE, weight_decay=DECAY)),
    Arm(
        name="schedule-free",
        optimizer=Optimizer("schedule-free-adamw", lr=RATE, weight_decay=DECAY, schedule="constant"),
    ),
    Arm(name="prodigy", optimizer=Optimizer("prodigy", lr=LogUniform(low=0.1, high=10.0), weight_decay=DECAY)),
    # The paper's: lambda * sin(pi theta) * g beside Adam's step (arXiv 2511.01918).
    Arm(
        name="superposition",
        optimizer=ADAMW,
        perturbation=Perturbation(source="sine", lambda_=LogUniform(low=0.05, high=50.0), scope="all"),
    ),
)


@dataclass(frozen=True)
class Size:
    """One size of the study.

    Attributes:
        trials_per_arm: searched points of an arm.
        search_seeds: seeds of each point; their interquartile mean is its value.
        epochs: epochs of a trial.
        seeds: number of paired seeds of the confirmation.
    """

    trials_per_arm: int
    search_seeds: int
    epochs: int
    seeds: int


SIZES = {
    "short": Size(trials_per_arm=2, search_seeds=1, epochs=4, seeds=5),
    "laptop": Size(trials_per_arm=16, search_seeds=3, epochs=16, seeds=15),
}
DEFAULT = "short"


def study_of(name: str, size: Size) -> Study:
    """Return the study at one size."""
    return Study(
        name="optimizers" if name == DEFAULT else f"optimizers_{name}",
        question="Does any of seven optimizers beat a tuned AdamW?",
        workloads=TASKS,
        arms=ARMS,
        baseline="adamw",
        search=Search(
            trials_per_arm=size.trials_per_arm,
            epochs=size.epochs,
            grace_epochs=min(8, size.epochs),
            reduction_factor=2,
            seeds=tuple(range(1, 1 + size.search_seeds)),
        ),
        confirm=Confirm(seeds=tuple(range(101, 101 + size.seeds)), epochs=size.epochs, workers=1),
        # Two points of accuracy: more than what two searches of the same AdamW should differ by in their luck.
        decision=Decision(metric="accuracy", margin=0.02),
    )


SCALES = {name: study_of(name, size) for name, size in SIZES.items()}
STUDY = SCALES[DEFAULT]
