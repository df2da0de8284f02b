"""The training loop: (trial, workload, circuits, replica) in; a `Measurement` an epoch and an `Outcome` out.

It knows neither Ray Train nor Ray Tune: whoever drives it pulls measurements from the generator and sends back whether
to stop. With several replicas each runs this loop; they differ only in their rank.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.circuits.backends.replicated import ReplicatedBackend
from qsgd_ray.config.trial import Trial
from qsgd_ray.optimizer import LambdaSchedule, SuperpositionalAdamW, Telemetry, make_optimizer
from qsgd_ray.optimizer.factory import TELEMETRY_EVERY
from qsgd_ray.optimizer.schedules import CONSTANT_RATE
from qsgd_ray.outcome import AnswerCounts, Ending, Measurement, Outcome
from qsgd_ray.random_keys import text_seed
from qsgd_ray.training._state import Parts, Progress
from qsgd_ray.training.hardware import matmul_flops_per_s, peak_memory_bytes, reset_peak_memory
from qsgd_ray.training.replica import SINGLE_PROCESS, Replica, distribute, full_tensor, full_weights
from qsgd_ray.workloads import Workload

if TYPE_CHECKING:
    from qsgd_ray.training.checkpoints import Checkpoints

Training = Generator[Measurement, bool | None, Outcome]

# Plain AdamW waits for no circuit and perturbs nothing.
NOTHING_PERTURBED = Telemetry(
    perturbation_norm=None, adam_step_norm=None, circuit_wait_s=0.0, circuit_s=0.0, n_circuits=0, n_samples=0
)


def train(
    trial: Trial,
    workload: Workload,
    circuits: CircuitBackend | None,
    replica: Replica = SINGLE_PROCESS,
    checkpoints: Checkpoints | None = None,
) -> Training:
    """Train as `trial` says: yields after each epoch, takes True to stop there, returns the outcome.

    Weights and data order follow from the trial's seed alone; dropout from the seed and the rank. Nothing that an arm
    does draws from these, so arms with the same seed are paired (protocol, rule 4).

    With `checkpoints` it goes on where the newest one was made, and first yields what was measured before. Parameters
    and measurements are then, but for their seconds, those of a training that was never cut off.
    """
    torch.manual_seed(text_seed(f"dropout {trial.seed} {replica.rank}"))
    reset_peak_memory(replica.device)
    model = workload.make_model(trial.seed)
    network = distribute(model, replica)
    if replica.world_size > 1:
        circuits = ReplicatedBackend(circuits) if circuits is not None else None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # In every epoch, however short, some step's perturbation is measured (protocol, rule 13).
    telemetry_every = min(TELEMETRY_EVERY, workload.steps_per_epoch)
    optimizer = make_optimizer(trial.arm, trained, circuits, trial.seed, telemetry_every)
    schedules = _schedules(trial, workload, optimizer)
    scaler = torch.amp.GradScaler(replica.device_type, enabled=workload.scales_loss)
    parts = Parts(model, optimizer, schedules, scaler)

    def backward(loss: torch.Tensor) -> None:
        scaler.scale(loss).backward()

    progress = checkpoints.restore(parts, replica.device) if checkpoints is not None else None
    if progress is None:
        progress = Progress(_zero(replica))
    elif progress.moved:
        torch.manual_seed(text_seed(f"dropout {trial.seed} {replica.rank} {progress.step}"))
    for measurement in progress.measurements:
        stop = yield measurement
        if replica.broadcast(bool(stop)) and measurement.epoch < trial.epochs:
            # The parameters of that epoch are gone.
            return Outcome(Ending.STOPPED_EARLY, progress.measurements[: measurement.epoch])

    for epoch in range(len(progress.measurements) + 1, trial.epochs + 1):
        first_step = (epoch - 1) * workload.steps_per_epoch
        began = time.perf_counter()
        for batch in workload.batches(trial.seed, epoch, replica.rank, replica.world_size, progress.step - first_step):
            optimizer.zero_grad()
            progress.loss_sum += workload.backward(network, batch, replica.world_size, backward)
            if workload.clip_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(trained, workload.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            for schedule in schedules:
                schedule.step()
            work = workload.work(batch, replica.world_size)
            progress.step += 1
            progress.n_tokens += work.n_tokens
            progress.model_flops += work.model_flops
            if checkpoints is not None and checkpoints.due(progress.step):
                if replica.device_type == "cuda":
                    torch.cuda.synchronize(replica.device)
                progress.wall_s += time.perf_counter() - began
                checkpoints.save(parts, progress)
                began = time.perf_counter()
        # Read once an epoch: reading the loss at every step would make a GPU wait.
        mean_loss = progress.loss_sum.item() / workload.steps_per_epoch
        progress.wall_s += time.perf_counter() - began

        train_loss = replica.all_reduce_sum(mean_loss)[0] / replica.world_size
        began = time.perf_counter()
        validation_loss, validation_accuracy = _evaluate(workload, model, "validation", replica)
        progress.evaluation_s += time.perf_counter() - began
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            _finish(checkpoints)
            return _ended(Ending.DIVERGED, progress, model, replica)
        peak_bytes = peak_memory_bytes(replica.device)
        told = optimizer.telemetry() if isinstance(optimizer, SuperpositionalAdamW) else NOTHING_PERTURBED
        measurement = Measurement(
            epoch=epoch,
            step=progress.step,
            wall_s=progress.wall_s,
            train_loss=train_loss,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            evaluation_s=progress.evaluation_s,
            circuit_wait_s=told.circuit_wait_s,
            circuit_s=told.circuit_s,
            n_circuits=told.n_circuits,
            perturbation_norm=told.perturbation_norm,
            adam_step_norm=told.adam_step_norm,
            n_tokens=progress.n_tokens or None,
            model_flops=progress.model_flops or None,
            peak_flops_per_s=matmul_flops_per_s(replica.device, workload.matmul_dtype)
            if progress.model_flops
            else None,
            peak_memory_bytes=int(replica.all_reduce_max(peak_bytes)[0]),
        )
        progress.measurements = (*progress.measurements, measurement)
        progress.loss_sum = _zero(replica)
        stop = yield measurement
        if replica.broadcast(bool(stop)) and epoch < trial.epochs:
            _finish(checkpoints)
            return _ended(Ending.STOPPED_EARLY, progress, model, replica)

    began = time.perf_counter()
    test_loss, test_accuracy = _evaluate(workload, model, "test", replica) if trial.reads_test else (None, None)
    answers = _answers(workload, model, replica) if trial.reads_test else None
    test_s = time.perf_counter() - began if trial.reads_test else None
    _finish(checkpoints)
    return replace(
        _ended(Ending.COMPLETED, progress, model, replica),
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        answers=answers,
        test_s=test_s,
    )


def _ended(ending: Ending, progress: Progress, model: nn.Module, replica: Replica) -> Outcome:
    return Outcome(ending, progress.measurements, parameters_sha256=fingerprint(model), workers=replica.world_size)


def _zero(replica: Replica) -> torch.Tensor:
    return torch.zeros((), dtype=torch.float64, device=replica.device)


def _finish(checkpoints: Checkpoints | None) -> None:
    """Nothing is being written any more where the next trial, or the removal of these, would meet it."""
    if checkpoints is not None:
        checkpoints.finish()


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
    loss_sum, n_correct, n = replica.all_reduce_sum(share.loss_sum, share.n_correct, share.n)
    return loss_sum / n, n_correct / n


def _answers(workload: Workload, model: nn.Module, replica: Replica) -> AnswerCounts | None:
    """What the model answers at the end, each replica taking its share; None where nothing is asked."""
    with full_weights(model):
        share = workload.answers(model, replica.rank, replica.world_size)
    if share is None:
        return None
    return AnswerCounts(*map(int, replica.all_reduce_sum(share.n_right, share.n_without_number, share.n)))


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


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the bytes of all parameters in their order: equal if and only if every bit is.

    Of a model in shards, every replica must ask."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        flat = full_tensor(parameter.detach()).cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
