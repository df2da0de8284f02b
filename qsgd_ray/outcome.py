"""How a trial ends, and what one measurement is: values, not exceptions (None is missing, never zero)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """The expected endings. Only `lost` (its process or node died) is tried again by itself."""

    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"


# With a model to judge, the better first.
USABLE = (Ending.COMPLETED, Ending.STOPPED_EARLY)


@dataclass(frozen=True)
class Measurement:
    """The state of a trial after `epoch` epochs; clocks count from the first step, evaluation excluded.

    `train_loss`: mean over the epoch. `perturbation_norm`, `adam_step_norm`: mean over the epoch's sampled steps of
    |lambda * Q| and of |m_hat / (sqrt(v_hat) + eps)|, Euclidean over the whole model; None where nothing is perturbed.
    `circuit_wait_s`: the part of `wall_s` that was spent waiting for circuits. `circuit_s`: seconds that engines worked
    on them, wherever they are (None: they do not tell). `evaluation_s`: seconds of evaluation so far, beside `wall_s`.

    `n_tokens` and `model_flops`: what was trained on so far, by all workers (models/flops.py; None: not counted).
    `peak_flops_per_s`: of one worker, measured (training/hardware.py). `peak_memory_bytes`: of the largest worker.
    """

    epoch: int
    step: int
    wall_s: float
    circuit_wait_s: float
    n_circuits: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    perturbation_norm: float | None = None
    adam_step_norm: float | None = None
    circuit_s: float | None = None
    evaluation_s: float | None = None
    n_tokens: int | None = None
    model_flops: float | None = None
    peak_flops_per_s: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Work:
    """One step over all workers: tokens that went through the model, and the operations of its mathematics (0: not
    counted)."""

    n_tokens: int
    model_flops: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """Sums over `n` items, sequences or tokens, so that the shares of several ranks add up.

    `loss_sum` is in nats, summed in float64.
    """

    loss_sum: float
    n_correct: int
    n: int


@dataclass(frozen=True)
class AnswerCounts:
    """Of `n` problems answered by generation, `n_right` have the right number and `n_without_number` none."""

    n_right: int
    n_without_number: int
    n: int


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves behind. `answers`: of test problems. `test_s`: seconds that all test data took.
    `parameters_sha256` names the final parameters bit for bit. `workers`: how many there were at the end.
    `checkpoints_failed`: how many could not be written since it last began (None: there are none)."""

    ending: Ending
    measurements: tuple[Measurement, ...] = ()
    test_loss: float | None = None
    test_accuracy: float | None = None
    answers: AnswerCounts | None = None
    test_s: float | None = None
    parameters_sha256: str | None = None
    workers: int | None = None
    checkpoints_failed: int | None = None
    error: str | None = None

    def first_reaching(self, target_accuracy: float) -> Measurement | None:
        """The first measurement at or above the target, or None for a miss."""
        return next((m for m in self.measurements if m.validation_accuracy >= target_accuracy), None)
