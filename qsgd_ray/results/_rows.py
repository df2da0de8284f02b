"""Rows of a trial: the trial and its outcome in; a row of `TRIALS` and a row of `MEASUREMENTS` an epoch out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from qsgd_ray.config.arm import fields_without_effect
from qsgd_ray.config.trial import Trial
from qsgd_ray.outcome import Measurement, Outcome

# By so much two clocks of a machine may differ over a trial.
_CLOCK_TOLERANCE_S = 1.0
# Columns of a trial that are those of its last measurement.
_THROUGHPUT = ("n_tokens", "model_flops", "peak_flops_per_s", "peak_memory_bytes")


def trial_row(
    trial: Trial,
    outcome: Outcome,
    *,
    started_at: datetime | None = None,
    ended_at: datetime | None = None,
    host: str | None = None,
) -> dict[str, Any]:
    """Return the row of `TRIALS` of a trial that ended at `ended_at`; None for times that are not known."""
    last: Measurement | None = outcome.measurements[-1] if outcome.measurements else None
    reached = outcome.first_reaching(trial.workload.target_accuracy)
    perturbation = trial.arm.perturbation
    perturbed = perturbation.model_dump() if perturbation else {}
    if perturbation:
        perturbed["rotations"] = ",".join(perturbation.rotations)
        perturbed["noise"] = perturbation.noise and perturbation.noise.model_dump_json()
        perturbed |= dict.fromkeys(fields_without_effect(perturbed["source"], perturbed["scope"]))
    return {
        "study": trial.study,
        "stage": trial.stage,
        "trial_id": trial.trial_id,
        "arm": trial.arm.name,
        "number": trial.number,
        "setting": trial.setting,
        "seed": trial.seed,
        "ending": str(outcome.ending),
        "error": outcome.error,
        "workers": trial.workers,
        "workers_at_end": outcome.workers,
        "checkpoints_failed": outcome.checkpoints_failed,
        "epochs_planned": trial.epochs,
        "epochs_run": len(outcome.measurements),
        "learning_rate": trial.arm.rate,
        "weight_decay": trial.arm.decay,
        "optimizer": trial.arm.optimizer and trial.arm.optimizer.name,
        "optimizer_settings": trial.arm.optimizer and trial.arm.optimizer.model_dump_json(),
        **perturbed,
        "test_loss": outcome.test_loss,
        "test_accuracy": outcome.test_accuracy,
        "metrics": metrics_text(last.metrics if last else None, outcome.test_metrics),
        "answers": outcome.answers and outcome.answers.n,
        "answers_right": outcome.answers and outcome.answers.n_right,
        "answers_without_number": outcome.answers and outcome.answers.n_without_number,
        "target_accuracy": trial.workload.target_accuracy,
        "epochs_to_target": reached.epoch if reached else None,
        "steps_to_target": reached.step if reached else None,
        "seconds_to_target": reached.wall_s if reached else None,
        "circuit_wait_s_to_target": reached.circuit_wait_s if reached else None,
        "steps": last.step if last else None,
        "train_loss": last.train_loss if last else None,
        "mean_train_loss": _mean(m.train_loss for m in outcome.measurements),
        "validation_loss": last.validation_loss if last else None,
        "validation_accuracy": last.validation_accuracy if last else None,
        **_seconds(outcome, (ended_at - started_at).total_seconds() if started_at and ended_at else None),
        "n_circuits": last.n_circuits if last else None,
        **{name: getattr(last, name) if last else None for name in _THROUGHPUT},
        "perturbation_norm": _mean(m.perturbation_norm for m in outcome.measurements),
        "adam_step_norm": _mean(m.adam_step_norm for m in outcome.measurements),
        "parameters_sha256": outcome.parameters_sha256,
        "started_at": started_at,
        "host": host,
        "trial": trial.model_dump_json(),
    }


def _seconds(outcome: Outcome, elapsed_s: float | None) -> dict[str, float | None]:
    """Return the seconds of a trial by what they were spent on; those that a clock which was set made impossible: None.

    `elapsed_s`, from the trial's start to its row, is the sum of `train_s` (steps), `circuit_wait_s`, `evaluation_s`
    and `idle_s`: making data and model, reporting, copying checkpoints, waiting for a decision to stop, and the time
    after the last measurement; of a trial that went on, also the time that was lost. `wall_s`: steps and waits.
    `circuit_s` is of other processes where a pool simulates.
    """
    last = outcome.measurements[-1] if outcome.measurements else None
    if last is None:
        return {"elapsed_s": _possible(elapsed_s, 0.0)}
    evaluation_s = None if last.evaluation_s is None else last.evaluation_s + (outcome.test_s or 0.0)
    spent_s = last.wall_s + (evaluation_s or 0.0)
    elapsed_s = _possible(elapsed_s, spent_s)
    idle_s = None if elapsed_s is None or evaluation_s is None else elapsed_s - spent_s
    return {
        "elapsed_s": elapsed_s,
        "wall_s": last.wall_s,
        "train_s": last.wall_s - last.circuit_wait_s,
        "circuit_wait_s": last.circuit_wait_s,
        "evaluation_s": evaluation_s,
        "idle_s": idle_s,
        "circuit_s": last.circuit_s,
    }


def _possible(elapsed_s: float | None, spent_s: float) -> float | None:
    """Return elapsed seconds, no less than those that were spent; None where they are: the clock was set back."""
    if elapsed_s is None or elapsed_s < spent_s - _CLOCK_TOLERANCE_S:
        return None
    return max(elapsed_s, spent_s)


def measurement_rows(trial: Trial, outcome: Outcome) -> list[dict[str, Any]]:
    """Return the rows of `MEASUREMENTS`, one an epoch."""
    named = {
        "trial_id": trial.trial_id,
        "stage": trial.stage,
        "arm": trial.arm.name,
        "number": trial.number,
        "seed": trial.seed,
    }
    return [
        named | asdict(measurement) | {"metrics": metrics_text(measurement.metrics)}
        for measurement in outcome.measurements
    ]


def metrics_text(validation: dict[str, float | None] | None, test: dict[str, float | None] | None = None) -> str | None:
    """Return a task's further metrics as JSON, by split and name; None where there are none."""
    by_split = {"validation": validation, "test": test}
    return json.dumps({split: values for split, values in by_split.items() if values}) if validation or test else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
