"""Write the results folder of a simulated study of any size; nothing is trained.

The files are those that `Results.write` leaves, one a trial and table. The rows are drawn so that the report has
everything to show: arms that gain and lose, trials that were stopped, diverged, failed or lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qsgd_ray.config import Arm, Confirm, Decision, LogUniform, Perturbation, Search, Study, TextTask
from qsgd_ray.outcome import Ending
from qsgd_ray.results import Results
from qsgd_ray.results.schema import MEASUREMENTS, TRIALS

EFFECTS = {"adamw": 0.0, "sine": 0.004, "circuit": 0.0, "shots": -0.01, "noisy": -0.03, "zero": 0.0, "shuffled": 0.001}
# Of the trials of a stage, in this order: what is left of them ran to the end.
ENDINGS = {
    "search": ((Ending.STOPPED_EARLY, 0.6), (Ending.DIVERGED, 0.05), (Ending.FAILED, 0.01)),
    "confirm": ((Ending.DIVERGED, 0.01), (Ending.FAILED, 0.005), (Ending.LOST, 0.005)),
}
STEPS_PER_EPOCH = 64


def large_study(n_trials: int) -> Study:
    """Return a study of seven arms; two trials in three belong to the search."""
    n_seeds = max(1, n_trials // (3 * len(EFFECTS)))
    rate = LogUniform(low=1e-4, high=1e-1)
    factor = LogUniform(low=0.1, high=10.0)
    return Study(
        name="large",
        question="Can a study of this size be read and reported?",
        workload=TextTask(target_accuracy=0.8),
        arms=tuple(
            Arm(
                name=name,
                learning_rate=rate,
                perturbation=None if name == "adamw" else Perturbation(source="sine", lambda_=factor),
            )
            for name in EFFECTS
        ),
        baseline="adamw",
        search=Search(trials_per_arm=max(1, n_trials // len(EFFECTS) - n_seeds), epochs=100),
        confirm=Confirm(seeds=tuple(range(1000, 1000 + n_seeds)), epochs=100),
        decision=Decision(margin=0.005),
    )


def write_large_study(folder: Path, n_trials: int, n_epochs: int = 100) -> Study:
    """Write the rows of `large_study(n_trials)` into a folder, and return the study.

    Args:
        folder: where the results go.
        n_trials: trials of all arms and stages.
        n_epochs: measurements a trial; a failed trial has none.
    """
    study = large_study(n_trials)
    results = Results(folder)
    results.open(study, {"versions": {"torch": "simulated"}, "commit": None})
    rng = np.random.default_rng(0)
    for arm in study.arms:
        for stage, n in (("search", study.search.trials_per_arm), ("confirm", len(study.confirm.seeds))):
            trials, measurements = _rows(study, arm, stage, n, n_epochs, rng)
            for table, rows in (("measurements", measurements), ("trials", trials)):
                _write(folder / table, rows, trials["trial_id"].to_pylist(), trials["epochs_run"].to_pylist())
    return study


def _rows(
    study: Study, arm: Arm, stage: str, n: int, n_epochs: int, rng: np.random.Generator
) -> tuple[pa.Table, pa.Table]:
    """Return the two tables of one stage of an arm, sorted by trial and epoch."""
    perturbed = arm.perturbation is not None
    numbers = np.arange(n)
    endings = np.full(n, str(Ending.COMPLETED), dtype=object)
    drawn, edge = rng.random(n), 0.0
    for ending, share in ENDINGS[stage]:
        endings[(drawn >= edge) & (drawn < edge + share)] = str(ending)
        edge += share
    completed, empty = endings == Ending.COMPLETED, endings == Ending.FAILED
    rate = 10 ** rng.uniform(-4, -1, n) if stage == "search" else np.full(n, 3e-3)
    factor = 10 ** rng.uniform(-1, 1, n) if stage == "search" else np.full(n, 0.5)
    top = 0.9 + EFFECTS[arm.name] - 0.1 * np.abs(np.log10(rate) + 2.5) + rng.normal(0, 0.01, n)
    epochs = np.arange(1, n_epochs + 1)
    accuracy = np.clip(top[:, None] - 0.6 * np.exp(-0.08 * epochs) + rng.normal(0, 0.004, (n, n_epochs)), 0, 1)
    wall = epochs * (2.9 if perturbed else 2.0) * rng.normal(1, 0.02, (n, 1))
    run = np.where(empty, 0, n_epochs)
    reached = accuracy >= study.workload.target_accuracy
    hit = reached.any(axis=1) & ~empty
    first = np.where(hit, reached.argmax(axis=1), 0)
    ids = np.array([f"{stage}-{arm.name}-{number:05d}-{number:010x}" for number in numbers])
    seeds = np.full(n, study.search.seeds[0]) if stage == "search" else np.array(study.confirm.seeds)
    tested = completed & (stage == "confirm")
    ratio = rng.lognormal(-3, 0.3, n)

    def some(values: Any, which: Any) -> pa.Array:
        return pa.array(np.asarray(values), mask=~np.asarray(which), from_pandas=False)

    trials = _table(
        TRIALS,
        n,
        study=np.full(n, study.name),
        stage=np.full(n, stage),
        trial_id=ids,
        arm=np.full(n, arm.name),
        number=numbers,
        seed=seeds,
        ending=endings.astype(str),
        error=some(np.full(n, "ValueError: simulated"), empty),
        workers=np.ones(n, int),
        workers_at_end=np.ones(n, int),
        epochs_planned=np.full(n, n_epochs),
        epochs_run=run,
        steps=some(STEPS_PER_EPOCH * run, ~empty),
        learning_rate=rate,
        weight_decay=np.zeros(n),
        source=some(np.full(n, "sine"), perturbed & np.ones(n, bool)),
        lambda_=some(factor, perturbed & np.ones(n, bool)),
        n_qubits=some(np.full(n, 4), perturbed & np.ones(n, bool)),
        validation_accuracy=some(accuracy[:, -1], ~empty),
        validation_loss=some(2.1 - accuracy[:, -1], ~empty),
        train_loss=some(2.0 - accuracy[:, -1], ~empty),
        test_accuracy=some(top, tested),
        test_loss=some(2.0 - top, tested),
        target_accuracy=np.full(n, study.workload.target_accuracy),
        epochs_to_target=some(epochs[first], hit),
        steps_to_target=some(STEPS_PER_EPOCH * epochs[first], hit),
        seconds_to_target=some(wall[numbers, first], hit),
        circuit_wait_s_to_target=some(0.2 * perturbed * wall[numbers, first], hit),
        elapsed_s=1.1 * wall[:, -1],
        wall_s=some(wall[:, -1], ~empty),
        train_s=some((1 - 0.2 * perturbed) * wall[:, -1], ~empty),
        circuit_wait_s=some(0.2 * perturbed * wall[:, -1], ~empty),
        evaluation_s=some(0.06 * wall[:, -1], ~empty),
        idle_s=some(0.04 * wall[:, -1], ~empty),
        circuit_s=some(0.3 * perturbed * wall[:, -1], ~empty),
        n_circuits=some(np.full(n, 1000 * n_epochs * perturbed), ~empty),
        perturbation_norm=some(ratio, perturbed & ~empty),
        adam_step_norm=some(np.ones(n), perturbed & ~empty),
    )
    kept = np.repeat(~empty, n_epochs)

    def long(values: Any) -> Any:
        return np.broadcast_to(values, (n, n_epochs)).reshape(-1)[kept]

    total = int(kept.sum())
    measurements = _table(
        MEASUREMENTS,
        total,
        trial_id=long(ids[:, None]),
        stage=np.full(total, stage),
        arm=np.full(total, arm.name),
        number=long(numbers[:, None]),
        seed=long(seeds[:, None]),
        epoch=long(epochs),
        step=long(STEPS_PER_EPOCH * epochs),
        wall_s=long(wall),
        circuit_wait_s=long(0.2 * perturbed * wall),
        circuit_s=long(0.3 * perturbed * wall),
        evaluation_s=long(0.06 * wall),
        n_circuits=long(1000 * perturbed * epochs),
        train_loss=long(2.0 - accuracy),
        validation_loss=long(2.1 - accuracy),
        validation_accuracy=long(accuracy),
        perturbation_norm=some(long(ratio[:, None] * epochs**-0.25), np.full(total, perturbed)),
        adam_step_norm=some(np.ones(total), np.full(total, perturbed)),
    )
    return trials, measurements


def _table(schema: pa.Schema, n: int, **columns: Any) -> pa.Table:
    """Return a table of these columns; all others are null."""
    arrays = [
        pa.nulls(n, field.type)
        if field.name not in columns
        else pa.compute.cast(pa.array(columns[field.name]), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _write(folder: Path, rows: pa.Table, ids: list[str], epochs: list[int]) -> None:
    start = 0
    for trial_id, n in zip(ids, epochs, strict=True):
        length = 1 if folder.name == "trials" else n
        pq.write_table(rows.slice(start, length), folder / f"{trial_id}.parquet")
        start += length
