"""Search the space of one arm by an Optuna study in memory, without Ray.

In: the study, the index of the arm, what an interrupted search has tried and what another study has. Out: numbered
points. With one trial at a time the points are a function of the study and of the results.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from qsgd_ray.config import Arm, Study
from qsgd_ray.config.base import LogUniform, Point, Space, Uniform, Value
from qsgd_ray.config.known_points import known_points
from qsgd_ray.config.stages import Search
from qsgd_ray.random_keys import named_seed
from qsgd_ray.search.warm_start import EarlierTrial

# Optuna's default, which would take all of a small budget.
_POPULATION = 50


def _make_sampler(search: Search, seed: int) -> BaseSampler:
    """Return the sampler that `search` names, set up for its budget."""
    budget = search.trials_per_arm
    startup = search.startup_trials
    makers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=startup, deterministic_objective=False, warn_independent_sampling=False
        ),
        "qmc": lambda: optuna.samplers.QMCSampler(
            seed=seed, scramble=True, warn_asynchronous_seeding=False, warn_independent_sampling=False
        ),
        # It knows neither choices nor fields that only some points have: these are drawn at random.
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        # Of Optuna's own crossover half the children of a small generation are copies of their parents, which would be
        # trained again to the same numbers.
        "nsga2": lambda: optuna.samplers.NSGAIISampler(
            seed=seed,
            population_size=min(_POPULATION, max(4, budget // 4)),
            crossover=optuna.samplers.nsgaii.BLXAlphaCrossover(),
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[search.sampler]()


def directions(study: Study) -> list[str]:
    """Return Optuna's direction of each objective: costs are to be small, quality is as its metric says."""
    quality = "maximize" if study.metric.direction == "max" else "minimize"
    return [quality if objective == "quality" else "minimize" for objective in study.search.objectives]


class ArmSearch:
    """The search of the arm at `index`.

    Points that an interrupted search has `tried`, by number, come first and unchanged, then the study's known points,
    then the sampler's. The sampler also knows `earlier` trials of another study.
    """

    def __init__(
        self, study: Study, index: int, tried: Mapping[int, Point], earlier: Sequence[EarlierTrial] = ()
    ) -> None:
        self.arm = study.arms[index]
        budget = study.points(self.arm)
        self._left = [*tried, *(number for number in range(budget) if number not in tried)]
        self._ranks_stopped = study.search.scheduler == "bohb"
        self._optuna = optuna.create_study(
            sampler=_make_sampler(study.search, _seed(study, self.arm.name, len(tried))),
            directions=directions(study),
        )
        self._trials: dict[int, optuna.Trial] = {}
        self._highest = [0.0] * len(study.search.objectives)
        for one in earlier:
            self._add(one)
        known = dict(enumerate(known_points(study.search, self.arm)))
        for number in self._left:
            if (point := tried.get(number, known.get(number))) is not None:
                self._optuna.enqueue_trial(point)

    @property
    def n_left(self) -> int:
        """Number of trials still to be asked for."""
        return len(self._left)

    @property
    def n_running(self) -> int:
        """Number of trials that were asked for and have no result yet."""
        return len(self._trials)

    def ask(self) -> tuple[int, Point]:
        """Return the number and the point of the next trial."""
        number = self._left.pop(0)
        trial = self._trials[number] = self._optuna.ask()
        with warnings.catch_warnings():
            # A run without a value counts as infinitely bad, and `gp` takes the worst that it has seen instead.
            warnings.filterwarnings("ignore", "Clip non-finite values", UserWarning)
            return number, self.arm.point_by(lambda path, space: _suggest_value(trial, path, space))

    def tell(self, number: int, values: Sequence[float | None] | None, stopped_at: int | None = None) -> None:
        """Give the sampler the result of a trial.

        A trial that was lost has taught the sampler nothing. The points after it would not be those of an undisturbed
        search, so the arm rests until the search is run again, which starts from the rows.

        Args:
            number: the trial's.
            values: one for each objective. None for a cost that was never measured, which counts as the highest so
                far. None instead of values: the trial was lost.
            stopped_at: the epoch at which a trial was stopped early. The sampler of `bohb` ranks such a trial behind
                all that were not, and among its like by that epoch. None: it was not stopped.
        """
        trial = self._trials.pop(number)
        if values is None:
            self._left.clear()
            self._optuna.tell(trial, state=TrialState.FAIL)
        elif stopped_at is not None and self._ranks_stopped:
            trial.report(self._with_costs(values)[0], stopped_at)
            self._optuna.tell(trial, state=TrialState.PRUNED)
        else:
            self._optuna.tell(trial, self._with_costs(values))

    def _add(self, one: EarlierTrial) -> None:
        """Give the sampler a trial of another study."""
        values, point, spaces = self._with_costs(one.values), one.point, distributions(self.arm, one.point)
        if one.stopped_at is not None and self._ranks_stopped:
            reached = {one.stopped_at: values[0]}
            trial = create_trial(
                state=TrialState.PRUNED, params=point, distributions=spaces, intermediate_values=reached
            )
        else:
            trial = create_trial(params=point, distributions=spaces, values=values)
        self._optuna.add_trial(trial)

    def _with_costs(self, values: Sequence[float | None]) -> list[float]:
        """Return the values with the highest cost so far for one that was never measured."""
        known = [self._highest[index] if value is None else value for index, value in enumerate(values)]
        self._highest = [max(pair) for pair in zip(self._highest, known, strict=True)]
        return known


def distributions(arm: Arm, point: Point) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions of the fields that a point sets.

    Args:
        arm: its spaces are meant.
        point: of the arm.
    """
    by_path: dict[str, BaseDistribution] = {}
    spaces = arm.spaces()
    for path in point:
        space = spaces[path]
        if isinstance(space, LogUniform | Uniform):
            by_path[path] = FloatDistribution(space.low, space.high, log=isinstance(space, LogUniform))
        else:
            by_path[path] = CategoricalDistribution(space.options)
    return by_path


def _suggest_value(trial: optuna.Trial, path: str, space: Space) -> Value:
    """Return the sampler's proposal for one field."""
    value: Value
    if isinstance(space, LogUniform | Uniform):
        value = trial.suggest_float(path, space.low, space.high, log=isinstance(space, LogUniform))
    else:
        value = trial.suggest_categorical(path, space.options)
    return value


def _seed(study: Study, arm: str, n_known: int) -> int:
    """Return the sampler's seed, keyed by the study's seed, the arm's name and the number of known points.

    Known points draw nothing, so a sampler that began with the same seed would propose the same points again.
    """
    return named_seed("search", study.seed, arm, n_known) % 2**32
