"""The training loop: (trial, workload, circuits, replica) in; a `Measurement` an epoch and an `Outcome` out.

It knows neither Ray Train nor Ray Tune: whoever drives it pulls measurements from the generator and sends back whether
to stop. With several replicas each runs this loop; they differ only in their rank.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from qsgd_ray.circuits.backends import CircuitBackend, ReplicatedBackend
from qsgd_ray.optimizer import SuperpositionalAdamW, Telemetry, make_optimizer
from qsgd_ray.optimizer.schedules import CONSTANT_RATE, LambdaSchedule
from qsgd_ray.outcome import AnswerCounts, Ending, Measurement, Outcome
from qsgd_ray.trial import Trial
from qsgd_ray.workloads import Workload

Training = Generator[Measurement, bool | None, Outcome]

TELEMETRY_EVERY = 16
# Plain AdamW waits for no circuit and perturbs nothing.
NOTHING_PERTURBED = Telemetry(
    perturbation_norm=None, adam_step_norm=None, circuit_wait_s=0.0, circuit_s=0.0, n_circuits=0, n_samples=0
)


@dataclass(frozen=True)
class Replica:
    """One of `world_size` equal copies of a training; with more than one, torch.distributed is initialised."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    def sums(self, *values: float) -> list[float]:
        """Each value summed over the replicas, in float64; the same bits on all of them."""
        if self.world_size == 1:
            return list(values)
        # Reduced where the process group's backend can reach it (gloo: CPU, nccl: GPU).
        totals = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(totals)
        return totals.tolist()

    def first_decides(self, stop: bool) -> bool:
        """What rank 0 decided, on every replica."""
        return bool(self.sums(float(stop and self.rank == 0))[0])


def train(trial: Trial, workload: Workload, circuits: CircuitBackend | None, replica: Replica = Replica()) -> Training:
    """Train as `trial` says: yields after each epoch, takes True to stop there, returns the outcome.

    Weights and data order follow from the trial's seed alone; dropout from the seed and the rank. Nothing that an arm
    does draws from these, so arms with the same seed are paired (protocol, rule 4).
    """
    measurements: list[Measurement] = []
    torch.manual_seed(_keyed("dropout", trial.seed, replica.rank))
    model = workload.make_model(trial.seed)
    network: nn.Module = model
    if replica.world_size > 1:
        network = DistributedDataParallel(model)
        circuits = ReplicatedBackend(circuits) if circuits is not None else None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # In every epoch, however short, some step's perturbation is measured (protocol, rule 13).
    telemetry_every = min(TELEMETRY_EVERY, workload.steps_per_epoch)
    optimizer = make_optimizer(trial.arm, trained, circuits, trial.seed, telemetry_every)
    schedules = _schedules(trial, workload, optimizer)

    wall_s = evaluation_s = 0.0
    for epoch in range(1, trial.epochs + 1):
        began = time.perf_counter()
        loss_sum = torch.zeros((), dtype=torch.float64, device=replica.device)
        for batch in workload.batches(trial.seed, epoch, replica.rank, replica.world_size):
            optimizer.zero_grad()
            loss = workload.backward(network, batch, replica.world_size)
            if workload.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, workload.clip_norm)
            optimizer.step()
            for schedule in schedules:
                schedule.step()
            loss_sum += loss
        # Read once an epoch: reading the loss at every step would make a GPU wait.
        mean_loss = loss_sum.item() / workload.steps_per_epoch
        wall_s += time.perf_counter() - began

        train_loss = replica.sums(mean_loss)[0] / replica.world_size
        began = time.perf_counter()
        validation_loss, validation_accuracy = _evaluate(workload, model, "validation", replica)
        evaluation_s += time.perf_counter() - began
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            return Outcome(Ending.DIVERGED, tuple(measurements), parameters_sha256=fingerprint(model))
        told = optimizer.telemetry() if isinstance(optimizer, SuperpositionalAdamW) else NOTHING_PERTURBED
        measurements.append(
            Measurement(
                epoch=epoch,
                step=epoch * workload.steps_per_epoch,
                wall_s=wall_s,
                train_loss=train_loss,
                validation_loss=validation_loss,
                validation_accuracy=validation_accuracy,
                evaluation_s=evaluation_s,
                circuit_wait_s=told.circuit_wait_s,
                circuit_s=told.circuit_s,
                n_circuits=told.n_circuits,
                perturbation_norm=told.perturbation_norm,
                adam_step_norm=told.adam_step_norm,
            )
        )
        stop = yield measurements[-1]
        if replica.first_decides(bool(stop)) and epoch < trial.epochs:
            return Outcome(Ending.STOPPED_EARLY, tuple(measurements), parameters_sha256=fingerprint(model))

    began = time.perf_counter()
    test_loss, test_accuracy = _evaluate(workload, model, "test", replica) if trial.reads_test else (None, None)
    answers = _answers(workload, model, replica) if trial.reads_test else None
    test_s = time.perf_counter() - began if trial.reads_test else None
    return Outcome(
        Ending.COMPLETED,
        tuple(measurements),
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        answers=answers,
        test_s=test_s,
        parameters_sha256=fingerprint(model),
    )


def run(training: Training, report: Callable[[Measurement], bool]) -> Outcome:
    """Drive a training to its end; `report` is told each measurement and answers True to stop."""
    stop: bool | None = None
    while True:
        try:
            measurement = training.send(stop)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        stop = report(measurement)


def _evaluate(
    workload: Workload, model: nn.Module, split: Literal["validation", "test"], replica: Replica
) -> tuple[float, float]:
    """Mean loss and accuracy over a split, each replica taking its share."""
    share = workload.evaluate(model, split, replica.rank, replica.world_size)
    loss_sum, n_correct, n = replica.sums(share.loss_sum, share.n_correct, share.n)
    return loss_sum / n, n_correct / n


def _answers(workload: Workload, model: nn.Module, replica: Replica) -> AnswerCounts | None:
    """What the model answers at the end, each replica taking its share; None where nothing is asked."""
    share = workload.answers(model, replica.rank, replica.world_size)
    if share is None:
        return None
    return AnswerCounts(*map(int, replica.sums(share.n_right, share.n_without_number, share.n)))


def _schedules(
    trial: Trial, workload: Workload, optimizer: torch.optim.Optimizer
) -> list[LambdaSchedule | LRScheduler]:
    """What moves with the steps of the trial: the learning rate, alike in all arms, and lambda."""
    total_steps = trial.epochs * workload.steps_per_epoch
    schedules: list[LambdaSchedule | LRScheduler] = []
    if workload.rate != CONSTANT_RATE:
        schedules.append(LambdaLR(optimizer, lambda step: workload.rate.factor(step, total_steps)))
    if (perturbation := trial.arm.perturbation) is not None:
        schedules.append(LambdaSchedule(optimizer, perturbation.schedule, total_steps))
    return schedules


def _keyed(*purpose: str | int) -> int:
    """63 bits that name a draw by its purpose."""
    digest = hashlib.sha256(" ".join(map(str, purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the bytes of all parameters in their order: equal if and only if every bit is."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        flat: Tensor = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
