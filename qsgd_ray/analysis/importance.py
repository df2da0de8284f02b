"""The importance of searched settings: the search's rows in, a share of one for each setting of an arm out.

PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255; optuna's) measures how far the best tenth of the trials lies, in one
setting, from all of them. A setting that does not matter has its best trials where all trials are.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.analysis._rows import usable_value
from qsgd_ray.analysis.trials import _has_column, searched_value
from qsgd_ray.config import Arm, Choice, LogUniform, Metric
from qsgd_ray.config.base import Space
from qsgd_ray.results import StudyTables

# Below that the best tenth is a single trial, and what it shows is chance.
_MIN_TRIALS = 10


@dataclass(frozen=True)
class Importance:
    """The importance of the settings that an arm's search varied.

    Attributes:
        arm: its name.
        n_trials: trials that count.
        n_null: trials that do not: without a value, or outside of the spaces of today.
        shares: importance by the setting's path, 0 to 1, one in all; None where nothing can be said.
        why: the reason for that; None where there are shares.
    """

    arm: str
    n_trials: int
    n_null: int
    shares: dict[str, float] | None
    why: str | None


def importances(tables: StudyTables) -> tuple[Importance, ...]:
    """Return the importance of the searched settings of every arm, in the study's order."""
    return tuple(_importance(tables, arm) for arm in tables.study.arms)


def _importance(tables: StudyTables, arm: Arm) -> Importance:
    rows, metric = tables.rows("search", arm.name), tables.study.metric
    spaces = {path: space for path, space in arm.spaces().items() if _has_column(tables.trials.column_names, path)}
    usable = [row for row in rows if usable_value(row, metric) is not None and _inside(row, spaces)]
    n, n_null = len(usable), len(rows) - len(usable)

    def nothing(why: str) -> Importance:
        return Importance(arm.name, n, n_null, None, why)

    if not spaces:
        return nothing("nothing is searched")
    if len(spaces) == 1:
        return nothing(f"{next(iter(spaces))} alone is searched")
    if n < _MIN_TRIALS:
        return nothing(f"{n} of the {_MIN_TRIALS} trials that it takes")
    shares = _shares(usable, spaces, metric)
    if shares is None:
        return nothing("all trials are alike")
    return Importance(arm.name, n, n_null, shares, None)


def _inside(row: dict[str, Any], spaces: dict[str, Space]) -> bool:
    """Tell the rows whose settings all lie in the spaces of today; those of an older version of the study may not."""
    for path, space in spaces.items():
        value, edges = searched_value(row, path), space.edges()
        if value is None or not (value in edges if isinstance(space, Choice) else edges[0] <= value <= edges[1]):
            return False
    return True


def _shares(rows: list[dict[str, Any]], spaces: dict[str, Space], metric: Metric) -> dict[str, float] | None:
    if all(len({searched_value(row, path) for row in rows}) == 1 for path in spaces):
        return None
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="maximize")
        distributions = {path: _distribution(space) for path, space in spaces.items()}
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={path: searched_value(row, path) for path in spaces},
                    distributions=distributions,
                    value=metric.sign * (usable_value(row, metric) or 0.0),
                )
                for row in rows
            ]
        )
        # The best tenth of all, against all: compared within the best alone, a setting that decides would vanish.
        with warnings.catch_warnings():
            # Where most trials share the best value there is no best tenth, and the answer would be a guess.
            warnings.filterwarnings("error", "Target and region quantiles", UserWarning)
            scores = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(evaluate_on_local=False))
    except UserWarning:
        return None
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(scores.values())
    if not np.isfinite(total) or total <= 0:
        return None
    return {path: scores.get(path, 0.0) / total for path in spaces}


def _distribution(space: Space) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(space, Choice):
        return CategoricalDistribution(space.options)
    return FloatDistribution(space.low, space.high, log=isinstance(space, LogUniform))
