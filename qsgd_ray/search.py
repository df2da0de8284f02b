"""Ray Tune and Optuna around the training loop: every arm tuned by itself, with the same budget.

In: a study and its site. Out: a row for each of `trials_per_arm` trials an arm, in the study's folder. Every arm has a
sampler and a halving of its own, so that arms neither inform nor stop each other; with one trial at a time per arm the
search of an arm is a function of the study alone, however fast the others are.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from qsgd_ray.belonging import point_in
from qsgd_ray.config import Study
from qsgd_ray.distributed import Site
from qsgd_ray.draws import named_seed
from qsgd_ray.results import Results
from qsgd_ray.spaces import LogUniform, Space, Uniform
from qsgd_ray.trainable import EPOCH, SCORE, TunedTrial
from qsgd_ray.trial import Point, startup_trials


def run_search(study: Study, site: Site) -> None:
    """Run, or go on with, the search of every arm."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Tune prints the traceback of an actor that was lost; what becomes of its trial is told by study.py.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # With its own group of workers a trial's actor only waits; Tune wants a positive share all the same.
    alone = study.search.workers == 1
    cpus = site.resources.cpus_per_worker if alone else 0.01
    gpus = site.resources.gpus_per_worker if alone else 0
    tune.Tuner(
        tune.with_resources(
            tune.with_parameters(TunedTrial, study=study, site=site),
            {"cpu": cpus} | ({"gpu": gpus} if gpus else {}) | (site.resources.on_worker_nodes() if alone else {}),
        ),
        tune_config=tune.TuneConfig(
            search_alg=ArmSearches(study, site.results),
            scheduler=ArmHalvings(study),
            num_samples=sum(study.planned("search", arm) for arm in study.arms),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"{study.name}-search",
            storage_path=site.cluster.scratch,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()


class ArmSearches(Searcher):
    """One OptunaSearch an arm behind the single searcher that Tune knows, arms served in turn."""

    def __init__(self, study: Study, results: Results) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._at_once = study.search.trials_at_once_per_arm
        known = {} if study.search.deterministic else known_points(study, results)
        self._numbers = {
            arm.name: _numbers(list(known.get(arm.name, {})), study.planned("search", arm)) for arm in study.arms
        }
        self._searches = {
            arm.name: OptunaSearch(
                {path: _distribution(space) for path, space in arm.spaces().items()},
                metric=SCORE,
                mode="max",
                sampler=_sampler(study, arm.name, len(known.get(arm.name, {}))),
                points_to_evaluate=list(known.get(arm.name, {}).values()) or None,
            )
            for arm in study.arms
            if arm.spaces()
        }
        self._running: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial of the arm with most trials left among those with room; None while all are busy."""
        waiting = {arm: numbers for arm, numbers in self._numbers.items() if numbers}
        if not waiting:
            return Searcher.FINISHED
        busy = list(self._running.values())
        free = [arm for arm in waiting if busy.count(arm) < self._at_once]
        if not free:
            return None
        arm = max(free, key=lambda name: len(waiting[name]))
        self._running[trial_id] = arm
        point: Point = self._searches[arm].suggest(trial_id)
        return {"arm": arm, "number": self._numbers[arm].pop(0), "point": point}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on to the arm's own search."""
        if search := self._searches.get(self._running[trial_id]):
            search.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on to the arm's own search, and make room.

        A trial that was lost has taught its sampler nothing, so what came after it would not be what comes after it in
        an undisturbed search: the arm rests until the search is run again, which starts from the rows.
        """
        arm = self._running.pop(trial_id)
        if error:
            self._numbers[arm].clear()
        if search := self._searches.get(arm):
            search.on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: an interrupted search goes on from the study's rows, never from a pickle."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


class ArmHalvings(FIFOScheduler):
    """One asynchronous successive halving an arm (ASHA, arXiv 1810.05934), on epochs."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self._epochs = study.search.epochs
        self._halvings = {
            arm.name: ASHAScheduler(
                time_attr=EPOCH,
                metric=SCORE,
                mode="max",
                max_t=study.search.epochs,
                grace_period=study.search.grace_epochs,
                reduction_factor=study.search.reduction_factor,
            )
            for arm in study.arms
        }

    def _of(self, trial: Any) -> ASHAScheduler:
        return self._halvings[trial.config["arm"]]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Pass on to the arm's own halving."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP, as the arm's own halving says."""
        # A stop at the last epoch would end a trial that has ended by itself.
        if result[EPOCH] >= self._epochs:
            return TrialScheduler.CONTINUE
        return self._of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Pass on to the arm's own halving."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Pass on to the arm's own halving."""
        self._of(trial).on_trial_remove(tune_controller, trial)


def known_points(study: Study, results: Results) -> dict[str, dict[int, Point]]:
    """Per arm and number, the points of search trials that have their row already."""
    points: dict[str, dict[int, Point]] = {arm.name: {} for arm in study.arms}
    for row in results.read_study(study).trials.to_pylist():
        if row["stage"] == "search" and (trial := row["trial"]) is not None:
            point = point_in(json.loads(trial)["arm"], study.arm(row["arm"]).spaces())
            if point is not None:
                points[row["arm"]][row["number"]] = point
    return points


def _numbers(first: list[int], total: int) -> list[int]:
    """0 .. total-1, with those in `first` in front."""
    return [*first, *(number for number in range(total) if number not in first)]


def _distribution(space: Space) -> optuna.distributions.BaseDistribution:
    if isinstance(space, LogUniform):
        return optuna.distributions.FloatDistribution(space.low, space.high, log=True)
    if isinstance(space, Uniform):
        return optuna.distributions.FloatDistribution(space.low, space.high)
    return optuna.distributions.CategoricalDistribution(space.options)


def _sampler(study: Study, arm: str, n_known: int) -> optuna.samplers.BaseSampler:
    """A sampler keyed by the study's seed, the arm's name and how many points it was told.

    Told points draw nothing, so a sampler that began anew with them would propose the very same ones again.
    """
    seed = named_seed("search", study.seed, arm, n_known) % 2**32
    if study.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials(study.search))
