"""Schemas of a study's two tables: `TRIALS`, one row a trial, and `MEASUREMENTS`, one row an epoch of a trial.

docs/results.md explains every column. Columns are only ever added, each with a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

SCHEMA_VERSION = "8"
# The columns in which two runs of the same study may differ.
TIME_COLUMNS = (
    "elapsed_s",
    "wall_s",
    "train_s",
    "circuit_wait_s",
    "evaluation_s",
    "idle_s",
    "circuit_s",
    "seconds_to_target",
    "circuit_wait_s_to_target",
    "peak_flops_per_s",
    "peak_memory_bytes",
    "checkpoints_failed",
    "started_at",
    "host",
)


def _schema(columns: dict[str, Any]) -> pa.Schema:
    return pa.schema(columns.items(), metadata={"qsgd_ray_schema": SCHEMA_VERSION})


TRIALS = _schema(
    {
        "study": pa.string(),
        "stage": pa.string(),
        "trial_id": pa.string(),
        "arm": pa.string(),
        "number": pa.int32(),
        "setting": pa.string(),
        "seed": pa.int64(),
        "ending": pa.string(),
        "error": pa.string(),
        "workers": pa.int32(),
        "workers_at_end": pa.int32(),
        "checkpoints_failed": pa.int32(),
        "epochs_planned": pa.int32(),
        "epochs_run": pa.int32(),
        "steps": pa.int64(),
        "learning_rate": pa.float64(),
        "weight_decay": pa.float64(),
        "optimizer": pa.string(),
        "optimizer_settings": pa.string(),
        "source": pa.string(),
        "lambda_": pa.float64(),
        "n_qubits": pa.int32(),
        "depth": pa.int32(),
        "entangle": pa.string(),
        "rotations": pa.string(),
        "scope": pa.string(),
        "formula": pa.string(),
        "placement": pa.string(),
        "direction": pa.string(),
        "schedule": pa.string(),
        "shots": pa.int64(),
        "noise": pa.string(),
        "train_loss": pa.float64(),
        "mean_train_loss": pa.float64(),
        "validation_loss": pa.float64(),
        "validation_accuracy": pa.float64(),
        "test_loss": pa.float64(),
        "test_accuracy": pa.float64(),
        "metrics": pa.string(),  # further ones, as JSON
        "answers": pa.int64(),
        "answers_right": pa.int64(),
        "answers_without_number": pa.int64(),
        "target_accuracy": pa.float64(),
        "epochs_to_target": pa.int32(),
        "steps_to_target": pa.int64(),
        "seconds_to_target": pa.float64(),
        "circuit_wait_s_to_target": pa.float64(),
        "elapsed_s": pa.float64(),
        "wall_s": pa.float64(),
        "train_s": pa.float64(),
        "circuit_wait_s": pa.float64(),
        "evaluation_s": pa.float64(),
        "idle_s": pa.float64(),
        "circuit_s": pa.float64(),
        "n_circuits": pa.int64(),
        "n_tokens": pa.int64(),
        "model_flops": pa.float64(),
        "peak_flops_per_s": pa.float64(),
        "peak_memory_bytes": pa.int64(),
        "perturbation_norm": pa.float64(),
        "adam_step_norm": pa.float64(),
        "parameters_sha256": pa.string(),
        "started_at": pa.timestamp("us", tz="UTC"),
        "host": pa.string(),
        "trial": pa.string(),  # all of it as JSON
    }
)
MEASUREMENTS = _schema(
    {
        "trial_id": pa.string(),
        "stage": pa.string(),
        "arm": pa.string(),
        "number": pa.int32(),
        "seed": pa.int64(),
        "epoch": pa.int32(),
        "step": pa.int64(),
        "wall_s": pa.float64(),
        "circuit_wait_s": pa.float64(),
        "circuit_s": pa.float64(),
        "evaluation_s": pa.float64(),
        "n_circuits": pa.int64(),
        "train_loss": pa.float64(),
        "validation_loss": pa.float64(),
        "validation_accuracy": pa.float64(),
        "metrics": pa.string(),
        "perturbation_norm": pa.float64(),
        "adam_step_norm": pa.float64(),
        "n_tokens": pa.int64(),
        "model_flops": pa.float64(),
        "peak_flops_per_s": pa.float64(),
        "peak_memory_bytes": pa.int64(),
    }
)
# Columns that have a value in every row, of every version.
_NEVER_NULL = {
    "trials": (
        "study",
        "stage",
        "trial_id",
        "arm",
        "number",
        "seed",
        "ending",
        "workers",
        "epochs_planned",
        "epochs_run",
        "learning_rate",
        "weight_decay",
        "target_accuracy",
    ),
    "measurements": (
        "trial_id",
        "stage",
        "arm",
        "number",
        "seed",
        "epoch",
        "step",
        "wall_s",
        "circuit_wait_s",
        "n_circuits",
        "train_loss",
        "validation_loss",
    ),
}
# Columns of a trial that have a value as soon as it has a measurement, of every version.
_MEASURED = (
    "steps",
    "train_loss",
    "validation_loss",
    "wall_s",
    "circuit_wait_s",
    "n_circuits",
)
