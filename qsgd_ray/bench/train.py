"""Time the steps of a trial under Ray Train against a plain torch loop on the same model and data.

The two take turns, an epoch each, so that a machine that is slow for seconds is slow for both. An epoch under Ray Train
holds all that happens between two measurements but for evaluation: the loop, the report of each measurement, copying a
checkpoint, and the steps' share of writing it in the background. The CPU time of Ray's own processes is in both, and is
given by itself as a share of a core: where training leaves a core to them, it costs no time.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from qsgd_ray.bench.rows import Timing, _of_pairs, _timings
from qsgd_ray.config import Arm, Confirm, Decision, LanguageTask, Resources, Search, Study, WordProblems
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.connection import Cluster, private_ray
from qsgd_ray.execution.train_group import RunContext, run_trials
from qsgd_ray.models.pretrained import TINY
from qsgd_ray.models.smollm2 import NAME as SMOLLM2
from qsgd_ray.optimizer import make_optimizer
from qsgd_ray.outcome import Ending, Measurement
from qsgd_ray.results import Results
from qsgd_ray.workloads import make_workload

PLAIN, UNDER = "plain torch loop", "under Ray Train"
_EPOCHS = 9
_ARM = Arm(name="adamw", learning_rate=2e-5, weight_decay=0.01)
_SEED = 1
_LIMIT = 0.03
_LOOKS_S = 0.02


def cases(rounds: int, quick: bool) -> Iterator[list[Timing]]:
    """Yield two cases: without a checkpoint, then with one.

    Args:
        rounds: trials, each beside a plain loop.
        quick: the two-layer model of the tests in place of SmolLM2-135M.
    """
    steps_per_epoch = 10 if quick else 6
    data = WordProblems(train_size=_EPOCHS * steps_per_epoch, validation_size=1, test_size=1)
    for kept in (False, True):
        yield _training_step(TINY if quick else SMOLLM2, steps_per_epoch, rounds, data, kept)


def _training_step(model: str, steps_per_epoch: int, rounds: int, data: WordProblems, kept: bool) -> list[Timing]:
    """Time a step of fine-tuning by the recipe of the paper, batches of one, on all threads of torch.

    Args:
        model: the model's name (models/pretrained.py).
        steps_per_epoch: steps between two measurements.
        rounds: trials, each beside a plain loop.
        data: the word problems.
        kept: write one checkpoint, in the middle of the trial.
    """
    task = LanguageTask(
        model=model,
        data=data,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=2,
        decay="linear",
        clip_norm=1.0,
    )
    middle = _EPOCHS // 2 + 1  # the number of the epoch after it is written while the trial trains
    seconds: dict[str, list[float]] = {PLAIN: [], UNDER: []}
    shares: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
            plain, under, share = _in_turns(task, middle * steps_per_epoch + 1 if kept else None, Path(folder))
        seconds[PLAIN] += plain
        seconds[UNDER] += under
        shares.append(share)
    ratios = np.array(seconds[UNDER]) / np.array(seconds[PLAIN])
    note = _of_pairs(seconds[UNDER], seconds[PLAIN], "epochs")
    if kept:
        note += "; " + _cost_of_a_checkpoint(ratios.reshape(rounds, -1), statistics.median(seconds[PLAIN]), middle - 1)
    note += f"; Ray's other processes: {100 * statistics.median(shares):.0f} % of a core"
    return _timings(
        f"step of {model}, batch 1, {torch.get_num_threads()} threads, a measurement every {steps_per_epoch} steps, "
        f"{'one checkpoint' if kept else 'no checkpoint'}",
        "step",
        seconds,
        dict.fromkeys(seconds, steps_per_epoch),
        {UNDER: note},
    )


def _cost_of_a_checkpoint(ratios_rp: np.ndarray, epoch_s: float, at: int) -> str:
    """Return in words how much longer the pair with the checkpoint took than the others.

    Args:
        ratios_rp: ratios of trial to plain loop, shape (rounds, pairs).
        epoch_s: seconds of a plain epoch.
        at: the pair in which the checkpoint was written.
    """
    others = np.median(np.delete(ratios_rp, at, axis=1), axis=1)
    cost_s = float(np.median(ratios_rp[:, at] - others)) * epoch_s
    if cost_s <= 0:
        return "a checkpoint takes less than these pairs differ by"
    return f"a checkpoint takes {cost_s:.2g} s: {100 * _LIMIT:g} % where there is one every {cost_s / _LIMIT:.0f} s"


def _in_turns(task: LanguageTask, checkpoint_steps: int | None, folder: Path) -> tuple[list[float], list[float], float]:
    """Return seconds of all epochs but the first, by the plain loop and by a trial.

    The third number is the share of a core that Ray's other processes took.
    """
    threads = torch.get_num_threads()
    turns = _Turns(folder)
    plain: list[float] = []
    failures: list[BaseException] = []

    def trial() -> None:
        try:
            run_trials([_trial(task)], _site(task, checkpoint_steps, turns, cluster_there))
        except BaseException as error:
            failures.append(error)

    with private_ray(threads) as cluster_there:
        under_way = threading.Thread(target=trial)
        under_way.start()
        try:
            for number, run_epoch in enumerate(_epochs(task), 1):
                while len(turns.measured()) < number:
                    if not under_way.is_alive():
                        raise RuntimeError("the trial under Ray Train ended early") from next(iter(failures), None)
                    time.sleep(_LOOKS_S)
                if number == 1:
                    busy, began = _ray_s(), time.perf_counter()
                plain.append(run_epoch())
                turns.hand_over(number)
            # Of one that has ended since, nothing is known any more.
            spent_s = sum(now - busy.get(process, 0.0) for process, now in _ray_s().items())
            share = spent_s / (time.perf_counter() - began)
        finally:
            turns.hand_over(_EPOCHS)
            under_way.join()
    if failures:
        raise failures[0]
    return plain[1:], turns.epochs_s(), share


def _ray_s() -> dict[psutil.Process, float]:
    """Return the CPU seconds so far of each process of Ray but the one that trains."""
    spent_s = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" not in " ".join(process.cmdline()):
                spent_s[process] = sum(process.cpu_times()[:2])
    return spent_s


def _epochs(task: LanguageTask) -> Iterator[Callable[[], float]]:
    """Yield each epoch of a plain loop; called, it runs and returns its seconds."""
    workload = make_workload(task)
    model = workload.make_model(_SEED)
    optimizer = make_optimizer(_ARM, model.parameters(), None)  # torch.optim.AdamW, fused
    total = _EPOCHS * workload.steps_per_epoch
    schedule = LambdaLR(optimizer, lambda step: workload.rate.factor(step, total))
    losses = torch.zeros((), dtype=torch.float64)

    def run_epoch(epoch: int) -> float:
        nonlocal losses
        began = time.perf_counter()
        for batch in workload.batches(_SEED, epoch, 0, 1):
            optimizer.zero_grad()
            losses += workload.backward(model, batch, 1)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return time.perf_counter() - began

    for epoch in range(1, _EPOCHS + 1):
        yield partial(run_epoch, epoch)


@dataclass(frozen=True)
class _Turns:
    """Turns of two loops, by files: the trial reports each measurement and waits until the plain loop hands over.

    The trial's process calls it for each measurement. The lines of `measured` are the time of a measurement and the
    seconds of evaluation so far.
    """

    folder: Path

    def __call__(self, trial: Trial, measurement: Measurement) -> bool:  # noqa: ARG002
        with (self.folder / "measured").open("a") as lines:
            lines.write(f"{time.time()} {measurement.evaluation_s}\n")
        number = len(self.measured())
        while not any(self._handed_over(later).exists() for later in (number, _EPOCHS)):
            time.sleep(_LOOKS_S)
        with (self.folder / "resumed").open("a") as lines:
            lines.write(f"{time.time()}\n")
        return False

    def epochs_s(self) -> list[float]:
        """Return the seconds of the trial's epochs but the first, without turns and evaluation."""
        measured, resumed = self.measured(), self.resumed()
        return [
            at - begun - (evaluation_s - before_s)
            for (at, evaluation_s), (_, before_s), begun in zip(measured[1:], measured, resumed, strict=False)
        ]

    def hand_over(self, number: int) -> None:
        self._handed_over(number).touch()

    def measured(self) -> list[list[float]]:
        return self._lines("measured")

    def resumed(self) -> list[float]:
        return [line[0] for line in self._lines("resumed")]

    def _handed_over(self, number: int) -> Path:
        return self.folder / f"plain-{number}"

    def _lines(self, name: str) -> list[list[float]]:
        file = self.folder / name
        lines = file.read_text().splitlines() if file.exists() else []
        return [[float(word) for word in line.split()] for line in lines]


def _require_completed(trial: Trial, ending: Ending, error: str | None) -> None:
    if ending is not Ending.COMPLETED:
        raise RuntimeError(f"{trial.trial_id}: {ending}") from (RuntimeError(error) if error else None)


def _trial(task: LanguageTask) -> Trial:
    return Trial(
        study="bench",
        stage="confirm",
        number=0,
        arm=_ARM,
        workload=task,
        seed=_SEED,
        epochs=_EPOCHS,
        workers=1,
        reads_test=False,
    )


def _site(task: LanguageTask, checkpoint_steps: int | None, turns: _Turns, cluster: Cluster) -> RunContext:
    resources = Resources(
        cpus_per_worker=torch.get_num_threads(), circuit_actors=None, checkpoint_steps=checkpoint_steps
    )
    study = Study(
        name="bench",
        question="What does Ray Train add?",
        workload=task,
        arms=(_ARM,),
        baseline=_ARM.name,
        search=Search(trials_per_arm=1, epochs=1, grace_epochs=1, seeds=(2,)),
        confirm=Confirm(seeds=(_SEED,), epochs=_EPOCHS, workers=1),
        decision=Decision(margin=0.01),
        resources=resources,
    )
    results = Results(turns.folder / "results")
    results.open(study, {})
    return RunContext(cluster, resources, None, results, turns, _require_completed)
