"""The search of one arm: asked for a point, told what became of it; an Optuna study in memory, nothing of Ray.

In: the study, which of its arms, and points that are known already. Out: numbered points. Asked and told one at a time
it is a function of the study and of what it is told.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from qsgd_ray.config import Study
from qsgd_ray.config.base import LogUniform, Point, Space, Uniform
from qsgd_ray.config.stages import Search
from qsgd_ray.random_keys import named_seed

# Optuna's own; of a small budget that would be all.
POPULATION = 50


def make_sampler(search: Search, seed: int) -> BaseSampler:
    """The sampler that `search` names, for its budget."""
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
        # Choices, and fields that are asked for only at times, are beyond it: they are drawn at random.
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
        # Of Optuna's own crossover half the children of a small generation are copies of their parents, which would be
        # trained again to the same numbers.
        "nsga2": lambda: optuna.samplers.NSGAIISampler(
            seed=seed,
            population_size=min(POPULATION, max(4, budget // 4)),
            crossover=optuna.samplers.nsgaii.BLXAlphaCrossover(),
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return makers[search.sampler]()


DIRECTIONS = {"quality": "maximize", "step_time": "minimize", "circuits": "minimize"}


class ArmSearch:
    """The arm with this index; `known`, points by number, come first, as they are."""

    def __init__(self, study: Study, index: int, known: Mapping[int, Point]) -> None:
        self.arm = study.arms[index]
        budget = study.points(self.arm)
        self._left = [*known, *(number for number in range(budget) if number not in known)]
        self._optuna = optuna.create_study(
            sampler=make_sampler(study.search, _seed(study, self.arm.name, len(known))),
            directions=[DIRECTIONS[objective] for objective in study.search.objectives],
        )
        for point in known.values():
            self._optuna.enqueue_trial(point)
        self._asked: dict[int, optuna.Trial] = {}
        self._dearest = [0.0] * len(study.search.objectives)

    @property
    def n_left(self) -> int:
        """How many trials are still to be asked for."""
        return len(self._left)

    @property
    def n_running(self) -> int:
        """How many were asked for and not yet told of."""
        return len(self._asked)

    def ask(self) -> tuple[int, Point]:
        """The next trial's number and point."""
        number = self._left.pop(0)
        trial = self._asked[number] = self._optuna.ask()
        point: Point = {}
        while open_ := [(path, space) for path, space in self.arm.spaces_at(point).items() if path not in point]:
            path, space = open_[0]
            point[path] = suggested(trial, path, space)
        return number, point

    def tell(self, number: int, values: Sequence[float | None] | None) -> None:
        """What the trial of this number came to, one value an objective, or None where it was lost.

        What a trial that failed at once would have cost, nobody knows: for the sampler, as much as the dearest.

        A trial that was lost has taught its sampler nothing, so what came after it would not be what comes after it in
        an undisturbed search: the arm rests until the search is run again, which starts from the rows.
        """
        trial = self._asked.pop(number)
        if values is None:
            self._left.clear()
            self._optuna.tell(trial, state=TrialState.FAIL)
        else:
            told = [self._dearest[place] if value is None else value for place, value in enumerate(values)]
            self._dearest = [max(pair) for pair in zip(self._dearest, told, strict=True)]
            self._optuna.tell(trial, told)


def suggested(trial: optuna.Trial, path: str, space: Space) -> int | float | str:
    """What the sampler proposes for one field."""
    value: int | float | str
    if isinstance(space, LogUniform | Uniform):
        value = trial.suggest_float(path, space.low, space.high, log=isinstance(space, LogUniform))
    else:
        value = trial.suggest_categorical(path, space.options)
    return value


def _seed(study: Study, arm: str, n_known: int) -> int:
    """Keyed by the study's seed, the arm's name and how many points it was told.

    Told points draw nothing, so a sampler that began anew with them would propose the very same ones again.
    """
    return named_seed("search", study.seed, arm, n_known) % 2**32
