"""Run trials whose settings are known beforehand: a list of them in, their rows in the study's folder out.

Trials of one worker run beside each other, as many as Ray has room for, on actors that Tune uses again; a group of
workers (train_group.py) takes its trials one after the other.
"""

from __future__ import annotations

import math
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from qsgd_ray.config import Study
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.out_of_memory import retry_out_of_memory
from qsgd_ray.execution.train_group import RunContext, run_trials
from qsgd_ray.execution.trainable import EPOCH, SCORE, TunedTrial
from qsgd_ray.execution.tune_run import run_in_tune
from qsgd_ray.outcome import Ending


class _FixedTrial(TunedTrial):
    """A trial that Tune knows by its id."""

    def setup(self, config: dict[str, Any], study: Study, context: RunContext, trials: dict[str, Trial]) -> None:  # type: ignore[override]
        """Begin the trial that `config` names.

        Args:
            config: the trial's id, as `trial_id`.
            study: the study.
            context: what the trials share.
            trials: all trials by id.
        """
        self._trials = trials
        super().setup(config, study, context)

    def _require_available(self) -> None:
        """Do nothing: no sampler learns of these trials."""

    def _not_started(self) -> dict[str, Any]:
        """End the trial without a row, its actor free for the next one, which ends in the same way."""
        return {SCORE: math.nan, EPOCH: 0, "done": True}

    def _named(self, config: dict[str, Any]) -> list[Trial]:
        return [self._trials[config["trial_id"]]]


class _InOrder(Searcher):
    """Trials one after the other, none once the gate is closed."""

    def __init__(self, trials: list[Trial], context: RunContext) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._left, self._context = [trial.trial_id for trial in reversed(trials)], context

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # noqa: ARG002 # as Tune calls it
        """Return the next trial."""
        if not self._left or not self._context.may_start():
            return str(Searcher.FINISHED)
        return {"trial_id": self._left.pop()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: no trial depends on another's result."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: an interrupted stage goes on from the study's rows."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as `save`."""


def run_fixed_trials(
    study: Study,
    context: RunContext,
    trials: list[Trial],
    *,
    max_concurrent: int | None = None,
    trials_per_fit: int | None = None,
) -> None:
    """Give every trial its row. Those that have one are left alone.

    A trial whose processes or circuits were lost is run again, as `run_trials` says; one that ran out of memory as the
    study's resources say, after all others.

    Args:
        study: names Tune's run.
        context: what the trials share.
        trials: all use the same number of workers.
        max_concurrent: so many trials of one worker at most run side by side. None: as many as there is room for.
        trials_per_fit: so many trials at most one group of workers takes before it is started anew. None: all.
    """
    waiting = [trial for trial in trials if not context.results.has(trial.trial_id)]
    if waiting and waiting[0].workers == 1:
        _beside_each_other(study, context, waiting, max_concurrent)
        # What lacked something there would lack it again; the same command tries later.
        waiting = [trial for trial in waiting if _ending(context, trial) is not Ending.UNAVAILABLE]
    run_trials(waiting, context, trials_per_fit)
    retry_out_of_memory(trials, context)


def _ending(context: RunContext, trial: Trial) -> Ending | None:
    """Return how a trial ended; None where it has no row."""
    try:
        return context.results.ending(trial.trial_id)
    except FileNotFoundError:
        return None


def _beside_each_other(study: Study, context: RunContext, trials: list[Trial], max_concurrent: int | None) -> None:
    by_id = {trial.trial_id: trial for trial in trials}
    # A grid would have Tune begin every trial, if only to be held back; a list ends where the budget does.
    in_order = None if context.gate is None else _InOrder(trials, context)
    run_in_tune(
        tune.with_parameters(_FixedTrial, study=study, context=context, trials=by_id),
        context,
        f"{study.name}-{trials[0].stage}",
        tune.TuneConfig(
            reuse_actors=True,
            max_concurrent_trials=max_concurrent,
            search_alg=in_order,
            num_samples=1 if in_order is None else len(trials),
        ),
        arm_of=lambda config: by_id[config["trial_id"]].arm.name,
        space={"trial_id": tune.grid_search(list(by_id))} if in_order is None else None,
    )
