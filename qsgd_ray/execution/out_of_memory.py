"""Try trials again that ran out of memory: the rows of a stage in; rows of further attempts in their place out.

Every attempt runs with nothing of the study beside it, after all other trials of its stage. What the study's resources
name is tried in turn; a trial that ran out of memory in all of it has failed, and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qsgd_ray.config import WorkerResources
from qsgd_ray.config.resources import Retry
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.train_group import RunContext, run_trials
from qsgd_ray.outcome import OUT_OF_MEMORY_AT_LAST, Ending, Measurement, Outcome, environment_error, ran_out_of_memory
from qsgd_ray.results import Results


def retry_out_of_memory(trials: Sequence[Trial], context: RunContext) -> None:
    """Try each trial again that ran out of memory, one at a time; leave all others alone.

    An attempt that ends in another way has the last word. A trial without a row, or that the spent budget holds back,
    stays as it is.

    Args:
        trials: of one stage, none of which runs.
        context: what the trials share; its resources say what is tried.
    """
    for trial in trials:
        for retry in context.resources.on_out_of_memory:
            if not _ran_out(context.results, trial) or not context.may_start():
                break
            resources = context.for_arm(trial.arm.name).resources
            if isinstance(retry, WorkerResources):
                resources = resources.with_worker(retry)
            run_trials([trial], replace(context, resources=resources, by_arm={}))
        else:
            if context.resources.on_out_of_memory and _ran_out(context.results, trial):
                _fail(trial, context)


def _ran_out(results: Results, trial: Trial) -> bool:
    """Return True where the trial's row says that it ran out of memory and is to be run again."""
    try:
        row = results.row(trial.trial_id)
    except FileNotFoundError:
        return False
    return row["ending"] == Ending.UNAVAILABLE and ran_out_of_memory(row["error"])


def _fail(trial: Trial, context: RunContext) -> None:
    """Replace the row by one of a failed trial, with what was tried and the last attempt's error."""
    row = context.results.row(trial.trial_id)
    tried = ", ".join(map(_in_words, context.resources.on_out_of_memory))
    line = environment_error(row["error"])
    error = f"{OUT_OF_MEMORY_AT_LAST} (tried: as the study says, {tried}): {line}\n{row['error']}"
    measurements = tuple(map(Measurement.from_row, context.results.trajectory(trial.trial_id)))
    outcome = Outcome(Ending.FAILED, measurements, workers=row["workers_at_end"], error=error)
    context.results.write(trial, outcome, started_at=row["started_at"], host=row["host"])
    context.ended(trial, Ending.FAILED, error)


def _in_words(retry: Retry) -> str:
    if not isinstance(retry, WorkerResources):
        return retry
    return "with " + " and ".join(f"{name} {value}" for name, value in retry.changes().items())
