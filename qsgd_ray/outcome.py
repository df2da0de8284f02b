"""Outcome of a trial and its measurements: values, not exceptions; None is missing, never zero."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class Ending(StrEnum):
    """The expected endings of a trial.

    `lost` (its process or node died) is retried by itself. `unavailable` lacked something where it ran: a package, a
    device, memory, data. Neither is a result of its arm, and the same command runs both again.
    """

    COMPLETED = "completed"
    STOPPED_EARLY = "stopped_early"
    DIVERGED = "diverged"
    FAILED = "failed"
    LOST = "lost"
    UNAVAILABLE = "unavailable"


# Endings that leave a model to judge, the better first.
USABLE = (Ending.COMPLETED, Ending.STOPPED_EARLY)
# Endings that a machine brought about and no arm: their trials are run again.
REPEATED = (Ending.LOST, Ending.UNAVAILABLE)

# The last line of a traceback: the error's class, with its module, and its message.
_ERROR_LINE = re.compile(r"^(?P<name>[A-Za-z_][\w.]*(?:Error|Exception|Exit)\b)(?P<message>.*)$", re.MULTILINE)
# Before the user's line in the note of an exception (workloads/_user_code.py).
RAISED_IN = "Raised in "
_RANK = re.compile(r"^rank \d+: ", re.MULTILINE)
# Errors of what surrounds a trial. StudyError: what was checked when the study was made is missing where it runs, such
# as a data set.
_OF_ENVIRONMENT = {
    "ImportError",
    "ModuleNotFoundError",
    "MemoryError",
    "_ArrayMemoryError",
    "OutOfMemoryError",
    "CircuitMemoryError",
    "OSError",
    "FileNotFoundError",
    "PermissionError",
    "StudyError",
}
_SAID_OF_ENVIRONMENT = re.compile(
    r"needs qiskit-aer|can't allocate memory|out of memory|No CUDA GPUs are available|no NVIDIA driver"
    r"|not compiled with CUDA|invalid device ordinal|no kernel image is available|No space left on device"
)
# Before the error of a trial that ran out of memory in every way that its study names (execution/out_of_memory.py).
OUT_OF_MEMORY_AT_LAST = "Out of memory in every attempt"
_MEMORY_ERRORS = {"MemoryError", "_ArrayMemoryError", "OutOfMemoryError", "CircuitMemoryError"}
_SAID_OF_MEMORY = re.compile(r"can't allocate memory|out of memory")


def error_lines(error: str) -> list[str]:
    """Return the last line of each traceback in the error of a row, one for each rank that raised.

    Args:
        error: a traceback; of a group of workers one a rank, each after `rank N: `.
    """
    lines = []
    for part in _RANK.split(error):
        if found := list(_ERROR_LINE.finditer(part)):
            name = found[-1]["name"].rpartition(".")[2]
            lines.append(f"{name}{found[-1]['message']}".strip())
    return lines


def user_line(error: str) -> str | None:
    """Return the last line of the user's own files that an error passed through; None where it passed through none.

    Args:
        error: a traceback, or one a rank, in which `RAISED_IN` and the line stand as a note of the exception.

    Example:
        >>> user_line(f"ValueError: no\\n{RAISED_IN}mine.py, line 31, in loss")
        'mine.py, line 31, in loss'
    """
    notes = [line for line in error.splitlines() if line.startswith(RAISED_IN)]
    return notes[-1].removeprefix(RAISED_IN) if notes else None


def user_error(error: str | None) -> str | None:
    """Return the user's line that an error passed through and what it says; None where it passed through none."""
    place, lines = user_line(error or ""), error_lines(error or "")
    return f"{place}: {lines[0]}" if place and lines else place


def environment_error(error: str | None) -> str | None:
    """Return the line of an error that tells of a machine and not of a trial; None where there is none.

    A package, a device, memory or data that is missing where a trial ran says nothing of its arm. Memory that every
    attempt lacked which the study names is the trial's own failure.

    Args:
        error: of a row: a traceback, or one a rank. None: there is none.

    Example:
        >>> environment_error("Traceback ...\\nModuleNotFoundError: No module named 'qiskit_aer'")
        "ModuleNotFoundError: No module named 'qiskit_aer'"
        >>> environment_error("Traceback ...\\nValueError: no such shape") is None
        True
    """
    if (error or "").startswith(OUT_OF_MEMORY_AT_LAST):
        return None
    for line in error_lines(error or ""):
        if line.partition(":")[0] in _OF_ENVIRONMENT or _SAID_OF_ENVIRONMENT.search(line):
            return line
    return None


def ran_out_of_memory(error: str | None) -> bool:
    """Return True where the error of a row tells of memory that was missing where its trial ran.

    Args:
        error: a traceback, or one a rank. None: there is none.

    Example:
        >>> ran_out_of_memory("Traceback ...\\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
        True
    """
    line = environment_error(error) or ""
    return line.partition(":")[0] in _MEMORY_ERRORS or _SAID_OF_MEMORY.search(line) is not None


def failure_ending(error: str) -> Ending:
    """Return how a trial ended that raised: `unavailable` where its environment is to blame, else `failed`.

    Args:
        error: its traceback, or one a rank.
    """
    return Ending.FAILED if environment_error(error) is None else Ending.UNAVAILABLE


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
        validation_accuracy: share of right predictions on the validation split, 0 to 1; None: the task measures none.
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
        metrics: the task's other metrics on the validation split by name, None where one has no finite value; None:
            the task has no others.
    """

    epoch: int
    step: int
    wall_s: float
    circuit_wait_s: float
    n_circuits: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float | None
    perturbation_norm: float | None = None
    adam_step_norm: float | None = None
    circuit_s: float | None = None
    evaluation_s: float | None = None
    n_tokens: int | None = None
    model_flops: float | None = None
    peak_flops_per_s: float | None = None
    peak_memory_bytes: int | None = None
    metrics: dict[str, float | None] | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Measurement:
        """Return the measurement of a row of `MEASUREMENTS` (results/schema.py)."""
        values = {one.name: row[one.name] for one in fields(cls)}
        further = json.loads(values["metrics"]) if values["metrics"] else {}
        return cls(**values | {"metrics": further.get("validation")})


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
        n_correct: right predictions; None: accuracy, if there is any, is among `sums`.
        n: sequences or tokens that were predicted.
        sums: sum and count of each further metric by name; the count of one that is a plain sum is None.
    """

    loss_sum: float
    n_correct: int | None
    n: int
    sums: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)


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
        test_accuracy: share of right predictions on the test split, 0 to 1; None: the task measures none.
        test_metrics: the task's other metrics on the test split, as in `Measurement`.
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
    test_metrics: dict[str, float | None] | None = None
    answers: AnswerCounts | None = None
    test_s: float | None = None
    parameters_sha256: str | None = None
    workers: int | None = None
    checkpoints_failed: int | None = None
    error: str | None = None

    def first_reaching(self, target_accuracy: float) -> Measurement | None:
        """Return the first measurement whose validation accuracy reaches the target; None: none does."""
        return next((m for m in self.measurements if (m.validation_accuracy or 0.0) >= target_accuracy), None)
