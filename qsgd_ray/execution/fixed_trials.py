"""Run trials whose settings are known beforehand: a list of them in, their rows in the study's folder out.

Trials of one worker run beside each other, as many as Ray has room for, on actors that Tune uses again; a group of
workers (train_group.py) takes its trials one after the other.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from qsgd_ray.config import Study
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.train_group import RunContext, run_trials
from qsgd_ray.execution.trainable import TunedTrial, run_in_tune
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

    def _named(self, config: dict[str, Any]) -> list[Trial]:
        return [self._trials[config["trial_id"]]]


def run_fixed_trials(
    study: Study,
    context: RunContext,
    trials: list[Trial],
    *,
    max_concurrent: int | None = None,
    trials_per_fit: int | None = None,
) -> None:
    """Give every trial its row. Those that have one are left alone.

    A trial whose processes or circuits were lost is run again, as `run_trials` says.

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


def _ending(context: RunContext, trial: Trial) -> Ending | None:
    """Return how a trial ended; None where it has no row."""
    try:
        return context.results.ending(trial.trial_id)
    except FileNotFoundError:
        return None


def _beside_each_other(study: Study, context: RunContext, trials: list[Trial], max_concurrent: int | None) -> None:
    by_id = {trial.trial_id: trial for trial in trials}
    run_in_tune(
        tune.with_parameters(_FixedTrial, study=study, context=context, trials=by_id),
        context,
        f"{study.name}-{trials[0].stage}",
        tune.TuneConfig(reuse_actors=True, max_concurrent_trials=max_concurrent),
        space={"trial_id": tune.grid_search(list(by_id))},
    )
