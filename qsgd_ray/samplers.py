"""Who proposes points: the name of a sampler, a seed and a budget in; one of Optuna's samplers out.

Each is a function of its seed and of what it was told. Optuna's own defaults are for hundreds of trials: what is drawn
at random before the first model, and the size of a generation, are cut down to small budgets here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from qsgd_ray.config.stages import Search

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
