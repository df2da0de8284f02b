"""The stages of a study in their order: search, confirm, map. Each goes on where an earlier run was cut off.

The stages only write rows; the verdict is computed from the rows (analysis/verdict.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.circuits.memory import total_bytes
from qsgd_ray.circuits.select.auto import make_backend
from qsgd_ray.config import Study
from qsgd_ray.config.base import Point
from qsgd_ray.config.trial import Trial, choice_key, confirm_trials, map_trials
from qsgd_ray.execution.connection import Cluster
from qsgd_ray.execution.events import Event, EventQueue
from qsgd_ray.execution.fixed_trials import run_fixed_trials
from qsgd_ray.execution.out_of_memory import retry_out_of_memory
from qsgd_ray.execution.preflight import needs_circuits
from qsgd_ray.execution.start_gate import StartGate
from qsgd_ray.execution.train_group import ATTEMPTS, RunContext
from qsgd_ray.execution.worker_requests import resources_by_arm
from qsgd_ray.outcome import Ending, Measurement, ran_out_of_memory, user_error
from qsgd_ray.pool.pool import CircuitPool
from qsgd_ray.results import Results, StudyTables
from qsgd_ray.results.tables import trial_of
from qsgd_ray.search.observations import best_point, unavailable_arms, unfinished_points
from qsgd_ray.search.tune import run_search
from qsgd_ray.training.checkpoint_index import FOLDER as CHECKPOINTS

# A cluster that grows starts nodes for the actors first.
POOL_START_TIMEOUT_S = 300


class StudyUnfinished(RuntimeError):
    """The study cannot go on to its verdict for now; says why in one line. Its rows are stored."""


class BudgetSpent(StudyUnfinished):
    """The study's budget was spent before its last trial had started."""


def run_stages(
    study: Study,
    results: Results,
    cluster: Cluster,
    events: EventQueue | None = None,
    tables: StudyTables | None = None,
    gate: StartGate | None = None,
) -> None:
    """Run what is missing of a study; every trial that ends leaves its row at once.

    Args:
        study: the study.
        results: where its rows go.
        cluster: the Ray that its trials run on; this process is connected to it.
        events: the queue for measurements and ends of trials; None: nobody reads them.
        tables: the rows that are there now; None: they are read first.
        gate: closed once the budget is spent; None: there is no budget.

    Raises:
        BudgetSpent: the gate was closed before every trial had started.
        StudyUnfinished: a search has lost the processes of a trial too often.
        CircuitError: the pool of circuit actors did not start.
    """

    def report(trial: Trial, measurement: Measurement) -> bool:
        if events is not None:
            events.post(Event(trial, measurement=measurement))
        return False

    def ended(trial: Trial, ending: Ending, error: str | None = None) -> None:
        if events is not None:
            events.post(Event(trial, ending=ending, reason=user_error(error)))

    with _circuits(study) as circuits:
        context = RunContext(
            cluster, study.resources, circuits, results, report, ended, by_arm=resources_by_arm(study), gate=gate
        )
        results.pack()  # what an earlier run left in single files
        tables = _search(tables or results.tables(study), context)
        results.pack()
        points = chosen_points(tables, results)
        by_arm = [confirm_trials(study, arm, point) for arm, point in points.items()]
        # Seeds outside, arms inside: what is there after an interruption is paired.
        trials = [trial for index, seed in enumerate(zip(*by_arm, strict=True)) for trial in _rotated(seed, index)]
        confirm = study.confirm
        run_fixed_trials(
            study, context, trials, max_concurrent=confirm.trials_at_once, trials_per_fit=confirm.trials_per_fit
        )
        results.pack()
        _require_started(trials, context)
        trials += (mapped := map_trials(study, points))
        run_fixed_trials(
            study, context, mapped, max_concurrent=confirm.trials_at_once, trials_per_fit=confirm.trials_per_fit
        )
        _require_started(mapped, context)
        if study.resources.checkpoint_steps is not None and all(results.has(trial.trial_id) for trial in trials):
            results.storage.remove(CHECKPOINTS)  # of trials that failed, or were killed after their row


def _require_started(trials: list[Trial], context: RunContext) -> None:
    """Raise BudgetSpent where a trial has no row and none may start any more."""
    if not context.may_start() and not all(context.results.has(trial.trial_id) for trial in trials):
        raise BudgetSpent


def _rotated(trials: tuple[Trial, ...], by: int) -> tuple[Trial, ...]:
    """Return the trials with another one first: no arm's seconds bear every cold start and every busy spell alone."""
    first = by % len(trials)
    return trials[first:] + trials[:first]


def _search(tables: StudyTables, context: RunContext) -> StudyTables:
    """Spend every arm's search budget, and return the rows after it.

    A trial whose process was lost leaves no row, so the search goes on for it. An arm of whose trials every one lacked
    something (a package, memory) is left out: the others go on to their verdicts.
    """
    left_out: set[str] = set()
    attempts = 0
    while attempts < ATTEMPTS:
        if not unfinished_points(tables).keys() - left_out:
            return tables
        if not context.may_start():
            raise BudgetSpent
        run_search(tables, context)
        tables = context.results.tables(tables.study)
        attempts += 1
        if starved := [
            trial_of(row) for row in tables.trials.to_pylist() if row["stage"] == "search" and _starved(row)
        ]:
            retry_out_of_memory(starved, context)
            if any(context.results.has(trial.trial_id) for trial in starved):
                attempts = 0  # the search has come further, by at least one trial
            tables = context.results.tables(tables.study)
        left_out = unavailable_arms(tables)
    if missing := {arm: n for arm, n in unfinished_points(tables).items() if arm not in left_out}:
        counts = ", ".join(f"{count} of {arm}" for arm, count in missing.items())
        raise StudyUnfinished(
            f"search: trials lost their process or their circuits {ATTEMPTS} times ({counts}); no arm is confirmed "
            "with less than its budget. The same command tries them again"
        )
    return tables


def _starved(row: dict[str, Any]) -> bool:
    """Return True for the row of a trial that ran out of memory and is to be run again."""
    return row["ending"] == Ending.UNAVAILABLE and ran_out_of_memory(row["error"])


@contextmanager
def _circuits(study: Study) -> Iterator[CircuitBackend | None]:
    """Yield the backend of a study's circuits: none, one in each worker, or a pool that outlives all trials."""
    if not needs_circuits(study):
        yield None
    elif (resources := study.resources).circuit_actors is None:
        yield make_backend(resources.circuit_engine, memory_bytes=total_bytes())
    else:
        pool = CircuitPool(
            resources.circuit_actors,
            resources.cpus_per_circuit_actor,
            resources.circuit_timeout_s,
            resources.circuit_engine,
            max_actors=resources.max_circuit_actors,
            resources=resources.circuit_node_resources(),
            idle_s=resources.circuit_idle_s,
        )
        try:
            pool.wait_until_ready(POOL_START_TIMEOUT_S)
            yield pool.backend()
        finally:
            pool.close()


def chosen_points(tables: StudyTables, results: Results) -> dict[str, Point]:
    """Return the point at which each arm is confirmed, chosen once for each search and kept beside the rows.

    Arms without one are left out. Of an arm that the study no longer has, the choice stays.

    Args:
        tables: the study and its rows after the search.
        results: where the choice is kept.
    """
    study = tables.study
    points = {name: point for name, point in results.choices(study).items() if point is not None}
    missing = [arm for arm in study.arms if arm.name not in points]
    rows = tables.trials.to_pylist() if missing else []
    best = {arm.name: point for arm in missing if (point := best_point(study, arm, rows)) is not None}
    if best:
        new = {name: {"search": choice_key(study, name), "point": point} for name, point in best.items()}
        results.write_text("chosen.json", json.dumps((results.read_json("chosen.json") or {}) | new, indent=2))
    return {arm.name: (points | best)[arm.name] for arm in study.arms if arm.name in points | best}
