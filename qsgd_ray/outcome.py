"""Outcome of a trial and its measurements: values, not exceptions; None is missing, never zero."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """The expected endings of a trial. Only `lost` (its process or node died) is retried by itself."""

    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"


# Endings that leave a model to judge, the better first.
USABLE = (Ending.COMPLETED, Ending.STOPPED_EARLY)


@dataclass(frozen=True)
class Measurement:
    """The state of a trial after an epoch; clocks and counts run from the first step of the trial.

    Attributes:
        epoch: epochs that have ended, >= 1.
        step: optimizer steps taken.
        wall_s: seconds of training, evaluation excluded.
        circuit_wait_s: part of `wall_s` spent waiting for circuits, seconds.
        n_circuits: circuits run so far.
        train_loss: mean loss over the epoch, nats.
        validation_loss: mean loss over the validation split, nats.
        validation_accuracy: share of right predictions on the validation split, 0 to 1.
        perturbation_norm: mean over the epoch's sampled steps of |lambda Q|, Euclidean over the whole model; None:
            nothing is perturbed.
        adam_step_norm: the same mean of |m_hat / (sqrt(v_hat) + eps)|.
        circuit_s: seconds that engines worked on circuits, wherever they run; None: they do not report it.
        evaluation_s: seconds of evaluation, which are not in `wall_s`.
        n_tokens: tokens trained on, over all workers; None: not counted.
        model_flops: floating point operations of the model's mathematics (models/flops.py), over all workers; None:
            not counted.
        peak_flops_per_s: most operations a second of one worker, measured (training/hardware.py).
        peak_memory_bytes: peak memory of the worker that has the largest.
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
    """Counts of one step over all workers.

    Attributes:
        n_tokens: tokens that went through the model, without padding.
        model_flops: floating point operations of the model's mathematics; 0: not counted.
    """

    n_tokens: int
    model_flops: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """Sums over a split or a rank's share of it; the sums of all shares add up.

    Attributes:
        loss_sum: sum of losses in nats, in float64.
        n_correct: right predictions.
        n: sequences or tokens that were predicted.
    """

    loss_sum: float
    n_correct: int
    n: int


@dataclass(frozen=True)
class AnswerCounts:
    """Counts of generated answers to problems.

    Attributes:
        n_right: answers with the right number.
        n_without_number: answers without a number.
        n: problems.
    """

    n_right: int
    n_without_number: int
    n: int


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Attributes:
        ending: the way in which it ended.
        measurements: one for each epoch that was measured.
        test_loss: mean loss over the test split, nats; None: the trial does not read it.
        test_accuracy: share of right predictions on the test split, 0 to 1.
        answers: counts of generated answers to test problems; None: there are none.
        test_s: seconds that all test data took.
        parameters_sha256: SHA-256 over the bytes of the final parameters, which names them bit for bit.
        workers: number of workers at the end.
        checkpoints_failed: checkpoints that could not be written since the trial last began; None: it saves none.
        error: traceback of a failed or lost trial.
    """

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
        """Return the first measurement whose validation accuracy reaches the target; None: none does."""
        return next((m for m in self.measurements if m.validation_accuracy >= target_accuracy), None)
