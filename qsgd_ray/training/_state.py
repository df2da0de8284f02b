"""State of a training: the parts that train, and the counts of its progress.

A trial and a workload come in, the model, its optimizer and its schedules go out, as this process holds them.
Checkpoints write both, `Parts` and `Progress`, and read them back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.circuits.backends.replicated import ReplicatedBackend
from qsgd_ray.config import Arm, LambdaShape
from qsgd_ray.config.optimizer import RateShapeWord
from qsgd_ray.config.trial import Trial
from qsgd_ray.optimizer import DrivenOptimizer, LambdaSchedule, RateSchedule, make_driven_optimizer, make_optimizer
from qsgd_ray.optimizer.factory import TELEMETRY_EVERY, require_scalable
from qsgd_ray.optimizer.schedules import CONSTANT_RATE, RateShape
from qsgd_ray.outcome import Measurement
from qsgd_ray.random_keys import text_seed
from qsgd_ray.training._sharding import distribute, full_tensor
from qsgd_ray.training.hardware import _reset_peak_memory
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import Workload


@dataclass
class Progress:
    """Counts and sums of a training so far.

    Attributes:
        loss_sum: float64 scalar on the device, sum of this replica's losses since the last measurement, nats.
        step: optimizer steps taken.
        moved: True where the checkpoint was written by another number of processes.
        wall_s: seconds of training, evaluation and the writing of checkpoints excluded.
        evaluation_s: seconds of evaluation on the validation split.
        n_tokens: tokens that went through the model, over all replicas; 0: not counted.
        model_flops: floating point operations of the model's mathematics, over all replicas; 0: not counted.
        measurements: one for each epoch that has ended.
    """

    loss_sum: Tensor
    step: int = 0
    moved: bool = False
    wall_s: float = 0.0
    evaluation_s: float = 0.0
    n_tokens: int = 0
    model_flops: float = 0.0
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Parts:
    """Objects that a training consists of; a checkpoint restores into these very objects.

    Attributes:
        model: the bare model, its tensors whole or in shards.
        network: the module that a step calls: `model` itself, or `model` in DistributedDataParallel.
        trained: the parameters that the optimizer has, in the order of the model.
        optimizer: the arm's.
        schedules: of the learning rate and of lambda, stepped after the optimizer; with `state_dict` and
            `load_state_dict`, as torch's schedulers have.
        scaler: scales the loss where the workload asks for it (float16), else does nothing.
    """

    model: nn.Module
    network: nn.Module
    trained: list[nn.Parameter]
    optimizer: torch.optim.Optimizer | DrivenOptimizer
    schedules: list[Any]
    scaler: torch.amp.GradScaler


def make_parts(trial: Trial, workload: Workload, circuits: CircuitBackend | None, replica: Replica) -> Parts:
    """Build the parts of a training, and seed torch's global generator, which draws dropout.

    Weights follow from the trial's seed alone. Dropout follows from the seed and the rank.
    """
    torch.manual_seed(text_seed(f"dropout {trial.seed} {replica.rank}"))
    _reset_peak_memory(replica.device)
    model = workload.make_model(trial.seed)
    network = distribute(model, replica)
    if replica.world_size > 1:
        circuits = ReplicatedBackend(circuits) if circuits is not None else None
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # In every epoch, however short, the perturbation of some step is measured (protocol, rule 13).
    telemetry_every = min(TELEMETRY_EVERY, workload.steps_per_epoch)
    optimizer: torch.optim.Optimizer | DrivenOptimizer
    if trial.arm.optimizer is None:
        optimizer = make_optimizer(trial.arm, trained, circuits, trial.seed, telemetry_every)
    else:
        optimizer = make_driven_optimizer(trial.arm, model, circuits, trial.seed, telemetry_every)
        require_scalable(trial.arm, optimizer, workload.scales_loss)
    schedules = _schedules(trial, workload, optimizer)
    scaler = torch.amp.GradScaler(replica.device_type, enabled=workload.scales_loss)
    return Parts(model, network, trained, optimizer, schedules, scaler)


def _schedules(
    trial: Trial, workload: Workload, optimizer: torch.optim.Optimizer | DrivenOptimizer
) -> list[LambdaSchedule | LRScheduler | RateSchedule]:
    """Return the schedules of a trial: of the learning rate, the arm's own or the workload's, and of lambda."""
    total_steps = trial.epochs * workload.steps_per_epoch
    schedules: list[LambdaSchedule | LRScheduler | RateSchedule] = []
    if isinstance(optimizer, DrivenOptimizer):
        shapes = _shapes(trial.arm, workload, optimizer, total_steps)
        if any(shape != CONSTANT_RATE for shape in shapes):
            schedules.append(RateSchedule(optimizer.param_groups, shapes, total_steps))
    elif workload.rate != CONSTANT_RATE:
        schedules.append(LambdaLR(optimizer, lambda step: workload.rate.factor(step, total_steps)))
    if (perturbation := trial.arm.perturbation) is not None:
        schedules.append(LambdaSchedule(optimizer, cast(LambdaShape, perturbation.schedule), total_steps))
    return schedules


def _shapes(arm: Arm, workload: Workload, optimizer: DrivenOptimizer, total_steps: int) -> list[RateShape]:
    """Return the shape of each parameter group's learning rate."""
    assert arm.optimizer is not None
    shapes: list[RateShape] = []
    for (_, one), made in zip(arm.optimizer.members, optimizer.optimizers, strict=True):
        own, warmup = cast(RateShapeWord | None, one.schedule), cast(float, one.warmup)
        shape = workload.rate if own is None else RateShape(round(warmup * total_steps), own, from_zero=False)
        shapes += [shape] * len(made.param_groups)
    return [CONSTANT_RATE if shape[:2] == CONSTANT_RATE[:2] else shape for shape in shapes]


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over the bytes of all parameters in their order: equal if and only if every bit is.

    If the model is in shards, every replica must call it, as each gathers the others' shards.
    """
    digest = hashlib.sha256()
    for parameter in model.parameters():
        flat = full_tensor(parameter.detach()).cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
