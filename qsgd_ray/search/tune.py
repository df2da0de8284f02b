"""Search the arms of a study by Ray Tune and Optuna, each by itself and with the same budget.

In: a study and its context. Out: a row for each of `trials_per_arm` trials an arm, in the study's folder. Every arm has
a sampler and a halving of its own, so that arms neither inform nor stop each other; with one trial at a time per arm
the search of an arm is a function of the study alone, however fast the others are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from ray import tune
from ray.tune.search import Searcher

from qsgd_ray.config.base import Point
from qsgd_ray.execution.starved_actors import StarvedTrials
from qsgd_ray.execution.train_group import RunContext
from qsgd_ray.execution.trainable import ENDING, EPOCH, SCORE, TunedTrial
from qsgd_ray.execution.tune_run import run_in_tune
from qsgd_ray.outcome import Ending
from qsgd_ray.results import StudyTables
from qsgd_ray.search._arm_search import ArmSearch
from qsgd_ray.search._halving import _ArmHalvings
from qsgd_ray.search.observations import _observed_points
from qsgd_ray.search.optuna_journal import _JOURNAL_ERRORS, FILE, SearchJournal, open_journal
from qsgd_ray.search.warm_start import EarlierTrial, read_warm_start
from qsgd_ray.storage import Folder

_log = logging.getLogger(__name__)


def run_search(tables: StudyTables, context: RunContext) -> None:
    """Run, or go on with, the search of every arm.

    Args:
        tables: the study and the rows that it has when the search begins.
        context: the cluster, the circuits and the results of the study.
    """
    study = tables.study
    earlier = read_warm_start(study, context.results)
    if earlier is not None:
        earlier.copy_into(context.results)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run_in_tune(
        tune.with_parameters(TunedTrial, study=study, context=context),
        context,
        f"{study.name}-search",
        tune.TuneConfig(
            search_alg=_ArmSearches(tables, _view(tables, context), earlier.trials if earlier else None),
            scheduler=_ArmHalvings(study),
            num_samples=sum(study.points(arm) for arm in study.arms),
            reuse_actors=True,
        ),
        arm_of=lambda config: str(config["arm"]),
        alone=study.search.workers == 1,
        callbacks=[StarvedTrials(study, context)],
    )


def _view(tables: StudyTables, context: RunContext) -> SearchJournal | None:
    """Return the journal for optuna-dashboard; None on an object store, where no file can grow."""
    storage = context.results.storage
    if not isinstance(storage, Folder):
        return None
    try:
        return open_journal(tables, storage.writable(FILE))
    except _JOURNAL_ERRORS as error:
        _log.warning("%s cannot be written: %s", FILE, error)
        return None


class _ArmSearches(Searcher):
    """The arms' searches behind the single searcher that Tune knows; arms are served in turn."""

    def __init__(
        self,
        tables: StudyTables,
        view: SearchJournal | None = None,
        earlier: Mapping[str, Sequence[EarlierTrial]] | None = None,
    ) -> None:
        study, earlier = tables.study, earlier or {}
        super().__init__(metric=SCORE, mode=study.metric.direction)
        self._view = view
        self._objectives = study.search.objectives
        self._at_once = study.search.trials_at_once_per_arm
        tried = {} if study.search.is_sequential else _tried_points(tables)
        self._searches = {
            arm.name: ArmSearch(study, index, tried.get(arm.name, {}), earlier.get(arm.name, ()))
            for index, arm in enumerate(study.arms)
            if arm.spaces()
        }
        self._running: dict[str, tuple[ArmSearch, int]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial, of the arm with most trials left among those with room; None while all are busy."""
        waiting = [search for search in self._searches.values() if search.n_left]
        if not waiting:
            return Searcher.FINISHED
        free = [search for search in waiting if search.n_running < self._at_once]
        if not free:
            return None
        search = max(free, key=lambda one: one.n_left)
        number, point = search.ask()
        self._running[trial_id] = search, number
        if self._view:
            self._view.begin(search.arm, number, point)
        return {"arm": search.arm.name, "number": number, "point": point}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Add a measurement to the journal; a sampler learns from a trial's end alone.

        Args:
            trial_id: Tune's.
            result: of the trial's last step.
        """
        search, number = self._running[trial_id]
        if self._view and result[EPOCH]:
            self._view.add_quality(search.arm, number, result[EPOCH], result[SCORE])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Give the result to the arm's own search, and make room.

        Args:
            trial_id: Tune's.
            result: of the trial's last step; None where there is none.
            error: True where the trial was lost.
        """
        search, number = self._running.pop(trial_id)
        values = None if error or result is None else [result[name] for name in self._objectives]
        # A trial without an ending of its own was stopped by Tune.
        ending = result.get(ENDING, Ending.STOPPED_EARLY) if result else None
        search.tell(number, values, result.get(EPOCH) if result and ending == Ending.STOPPED_EARLY else None)
        if self._view and values:
            self._view.end(search.arm, number, ending, values)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: an interrupted search goes on from the study's rows, never from a pickle."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as `save`."""


def _tried_points(tables: StudyTables) -> dict[str, dict[int, Point]]:
    """Per arm and number, the points of search trials that have a row already."""
    observations = _observed_points(tables.study, tables.trials.to_pylist())
    return {arm: {one.number: one.point for one in of_arm} for arm, of_arm in observations.items()}
