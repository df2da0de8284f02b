"""Trials that are known beforehand: a list of them in, their rows in the study's folder out.

Trials of one worker run beside each other, as many as Ray has room for, on actors that Tune uses again; a group of
workers (train_group.py) takes its trials one after the other.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from qsgd_ray.config import Study
from qsgd_ray.config.trial import Trial
from qsgd_ray.execution.train_group import Site, run_trials
from qsgd_ray.execution.trainable import TunedTrial, through_tune


class ListedTrial(TunedTrial):
    """A trial that is named by its id, `trials` being all there are."""

    def setup(self, config: dict[str, Any], study: Study, site: Site, trials: dict[str, Trial]) -> None:  # type: ignore[override]
        """`config`: which one."""
        self._trials = trials
        super().setup(config, study, site)

    def _named(self, config: dict[str, Any]) -> list[Trial]:
        return [self._trials[config["trial_id"]]]


def run_listed(
    study: Study, site: Site, trials: list[Trial], *, at_once: int | None = None, trials_per_fit: int | None = None
) -> None:
    """Give every trial its row; those that have one are left alone. All use the same number of workers.

    `at_once`: so many trials of one worker at most; None: as many as there is room for. Whoever loses its process or
    its circuits is tried again as train_group.py says.
    """
    waiting = [trial for trial in trials if not site.results.has(trial.trial_id)]
    if waiting and waiting[0].workers == 1:
        _beside_each_other(study, site, waiting, at_once)
    run_trials(waiting, site, trials_per_fit)


def _beside_each_other(study: Study, site: Site, trials: list[Trial], at_once: int | None) -> None:
    by_id = {trial.trial_id: trial for trial in trials}
    through_tune(
        tune.with_parameters(ListedTrial, study=study, site=site, trials=by_id),
        site,
        f"{study.name}-{trials[0].stage}",
        tune.TuneConfig(reuse_actors=True, max_concurrent_trials=at_once),
        space={"trial_id": tune.grid_search(list(by_id))},
    )
