"""What Ray Train adds to a step: a plain torch loop on the same model and data beside it, with and without checkpoints.

A step under Ray Train holds its share of all that goes on between two measurements but for evaluation: the loop, the
report of each measurement, copying a checkpoint, and what its writing in the background takes from the steps meanwhile.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from qsgd_ray.bench.rows import Timing, timings
from qsgd_ray.config import Arm, Confirm, Decision, LanguageTask, Resources, Search, Study, WordProblems
from qsgd_ray.connection import private_ray
from qsgd_ray.distributed import Site, run_trials
from qsgd_ray.models.pretrained import TINY
from qsgd_ray.models.smollm2 import NAME as SMOLLM2
from qsgd_ray.optimizer import make_optimizer
from qsgd_ray.outcome import Ending, Measurement
from qsgd_ray.results import Results
from qsgd_ray.trial import Trial
from qsgd_ray.workloads import make_workload

PLAIN, UNDER, KEPT = "plain torch loop", "under Ray Train", "under Ray Train, one checkpoint"
EPOCHS = 5
ARM = Arm(name="adamw", learning_rate=2e-5, weight_decay=0.01)
SEED = 1
LIMIT = 0.03


def cases(rounds: int, quick: bool) -> Iterator[list[Timing]]:
    """One case: SmolLM2-135M, or where `quick` the two layers that tests use."""
    steps_per_epoch = 10 if quick else 6
    data = WordProblems(train_size=EPOCHS * steps_per_epoch, validation_size=1, test_size=1)
    yield training_step(TINY if quick else SMOLLM2, steps_per_epoch, rounds, data)


def training_step(model: str, steps_per_epoch: int, rounds: int, data: WordProblems) -> list[Timing]:
    """A step of fine-tuning by the paper's recipe, batches of one, on as many threads as torch has here."""
    task = LanguageTask(
        model=model,
        data=data,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=2,
        decay="linear",
        clip_norm=1.0,
    )
    timed = (EPOCHS - 1) * steps_per_epoch
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        calls: dict[str, Callable[[], float]] = {
            PLAIN: lambda: _plain(task),
            UNDER: lambda: _under_ray(task, None, Path(tempfile.mkdtemp(dir=folder))),
            KEPT: lambda: _under_ray(task, 3 * steps_per_epoch, Path(tempfile.mkdtemp(dir=folder))),
            f"{PLAIN}, again": lambda: _plain(task),
        }
        for _ in range(rounds):
            for name, call in calls.items():
                seconds.setdefault(name, []).append(call())
    return timings(
        f"step of {model}, batch 1, {torch.get_num_threads()} threads, a measurement every {steps_per_epoch} steps",
        "step",
        seconds,
        dict.fromkeys(calls, timed),
        {KEPT: _cost_of_a_checkpoint(seconds)},
    )


def _cost_of_a_checkpoint(seconds: dict[str, list[float]]) -> str:
    with_one, without = (statistics.median(seconds[name]) for name in (KEPT, UNDER))
    cost_s = with_one - without
    if cost_s <= 0:
        return "a checkpoint takes less than these rounds differ by"
    return f"a checkpoint takes {cost_s:.2g} s: {100 * LIMIT:g} % where there is one every {cost_s / LIMIT:.0f} s"


def _plain(task: LanguageTask) -> float:
    """Seconds of all epochs but the first, by a loop as one writes it without this package's own."""
    workload = make_workload(task)
    model = workload.make_model(SEED)
    optimizer = make_optimizer(ARM, model.parameters(), None)  # torch.optim.AdamW, fused
    total = EPOCHS * workload.steps_per_epoch
    schedule = LambdaLR(optimizer, lambda step: workload.rate.factor(step, total))
    began, losses = 0.0, torch.zeros((), dtype=torch.float64)
    for epoch in range(1, EPOCHS + 1):
        if epoch == 2:
            began = time.perf_counter()
        for batch in workload.batches(SEED, epoch, 0, 1):
            optimizer.zero_grad()
            losses += workload.backward(model, batch, 1)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Clock:
    """Notes when each measurement was told, and how long evaluation had taken until then."""

    file: Path

    def __call__(self, trial: Trial, measurement: Measurement) -> bool:  # noqa: ARG002
        with self.file.open("a") as lines:
            lines.write(f"{time.time()} {measurement.evaluation_s}\n")
        return False


def _told(trial: Trial, ending: Ending) -> None:
    if ending is not Ending.COMPLETED:
        raise RuntimeError(f"{trial.trial_id}: {ending}")


def _under_ray(task: LanguageTask, checkpoint_steps: int | None, folder: Path) -> float:
    """The same of a trial under Ray Train, on a Ray of its own."""
    threads = torch.get_num_threads()
    resources = Resources(cpus_per_worker=threads, circuit_actors=None, checkpoint_steps=checkpoint_steps)
    study = Study(
        name="bench",
        question="What does Ray Train add?",
        workload=task,
        arms=(ARM,),
        baseline=ARM.name,
        search=Search(trials_per_arm=1, epochs=1, grace_epochs=1, seeds=(2,)),
        confirm=Confirm(seeds=(SEED,), epochs=EPOCHS, workers=1),
        decision=Decision(margin=0.01),
        resources=resources,
    )
    trial = Trial(
        study=study.name,
        stage="confirm",
        number=0,
        arm=ARM,
        workload=task,
        seed=SEED,
        epochs=EPOCHS,
        workers=1,
        reads_test=False,
    )
    results, clock = Results(folder / "results"), Clock(folder / "clock")
    results.open(study, {})
    with private_ray(threads) as cluster:
        run_trials([trial], Site(cluster, resources, None, results, clock, _told))
    first, *_, last = ([float(word) for word in line.split()] for line in clock.file.read_text().splitlines())
    return (last[0] - first[0]) - (last[1] - first[1])
