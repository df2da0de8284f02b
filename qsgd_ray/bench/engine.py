"""Measure the time that the search adds to a trial, beside Ray Tune with empty trials.

The trials train next to nothing. Time beyond training is the stage's wall time without the steps, waits and evaluations
of its rows: starting Tune and its actor, samplers, halving, making models, writing rows and the dashboard's journal.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune

from qsgd_ray.bench.rows import Timing, _timings
from qsgd_ray.config import (
    Arm,
    Confirm,
    Decision,
    LogUniform,
    Resources,
    Search,
    Study,
    TextTask,
    Transformer,
)
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.connection import Cluster, private_ray
from qsgd_ray.execution.train_group import RunContext
from qsgd_ray.outcome import Ending, Measurement
from qsgd_ray.results import Results
from qsgd_ray.search.tune import run_search

STAGE, BEYOND, EMPTY = "search stage", "of it beyond training", "Tune alone, empty trials"
_LIMIT_S = 0.15


def cases(n_trials: int, rounds: int) -> Iterator[list[Timing]]:
    """Yield one case: one arm, one trial at a time, one worker each, on a private Ray.

    Args:
        n_trials: trials of a search, 1 or more.
        rounds: searches, each beside Tune with as many empty trials.
    """
    with private_ray(1) as cluster, tempfile.TemporaryDirectory(prefix="bench-engine-") as folder:
        yield _trials_of_a_search(n_trials, rounds, cluster, Path(folder))


def _trials_of_a_search(n_trials: int, rounds: int, cluster: Cluster, folder: Path) -> list[Timing]:
    """Time searches of one epoch of two steps by TPE, each into a folder of its own."""
    seconds: dict[str, list[float]] = {STAGE: [], BEYOND: [], EMPTY: []}
    for number in range(rounds):
        stage_s, training_s = _search_seconds(_study_of(n_trials, number), cluster, folder / str(number))
        seconds[STAGE].append(stage_s)
        seconds[BEYOND].append(stage_s - training_s)
        seconds[EMPTY].append(_empty_seconds(n_trials, cluster, number))
    return _timings(
        f"a search of {n_trials} trials that train next to nothing, one at a time",
        "trial",
        seconds,
        dict.fromkeys(seconds, n_trials),
        {BEYOND: f"goal: {1e6 * _LIMIT_S:,.0f} µs"},
    )


def _study_of(n_trials: int, seed: int = 0) -> Study:
    """Return a study of one arm, whose learning rate is searched on a text task of 64 sequences."""
    return Study(
        name=f"bench{seed}",
        question="What does the engine add to a trial?",
        workload=TextTask(
            train_size=64,
            validation_size=32,
            test_size=32,
            model=Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1),
        ),
        arms=(Arm(name="adamw", learning_rate=LogUniform(low=1e-4, high=1e-1)),),
        baseline="adamw",
        search=Search(trials_per_arm=n_trials, epochs=1, grace_epochs=1),
        confirm=Confirm(seeds=(1,), epochs=1, workers=1),
        decision=Decision(margin=0.01),
        resources=Resources(circuit_actors=None),
        seed=seed,
    )


def _go_on(trial: Trial, measurement: Measurement) -> bool:  # noqa: ARG001
    return False


def _require_completed(trial: Trial, ending: Ending, error: str | None) -> None:
    if ending is not Ending.COMPLETED:
        raise RuntimeError(f"{trial.trial_id}: {ending}") from (RuntimeError(error) if error else None)


def _search_seconds(study: Study, cluster: Cluster, folder: Path) -> tuple[float, float]:
    """Return the seconds of the search stage, and those of its trainings."""
    results = Results(folder)
    results.open(study, {})
    context = RunContext(cluster, study.resources, None, results, _go_on, _require_completed)
    began = time.perf_counter()
    run_search(results.tables(study), context)
    stage_s = time.perf_counter() - began
    rows = results.all_tables().trials.to_pylist()
    return stage_s, sum(row["wall_s"] + row["evaluation_s"] for row in rows)


class _Empty(tune.Trainable):
    """Trial without anything in it."""

    def step(self) -> dict[str, Any]:
        return {"quality": 0.0, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:  # noqa: ARG002
        return True


def _empty_seconds(n_trials: int, cluster: Cluster, number: int) -> float:
    """Return the seconds of as many empty trials, in one actor that is used again."""
    began = time.perf_counter()
    results = tune.Tuner(
        tune.with_resources(_Empty, {"cpu": 1}),
        param_space={"x": tune.uniform(0.0, 1.0)},
        tune_config=tune.TuneConfig(num_samples=n_trials, reuse_actors=True, metric="quality", mode="max"),
        run_config=tune.RunConfig(
            name=f"empty{number}",
            storage_path=cluster.scratch,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} empty trials failed")
    return time.perf_counter() - began
