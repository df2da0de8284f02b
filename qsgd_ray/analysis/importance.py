"""The importance of searched settings: the search's rows in, a share of one for each setting of an arm out.

PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255; optuna's) measures how far the best tenth of the trials lies, in one
setting, from all of them. A setting that does not matter has its best trials where all trials are. A setting that only
some trials have counts by those, and by how many of the best have it (condPED-ANOVA, arXiv:2601.20800).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsgd_ray.analysis._rows import usable_value
from qsgd_ray.analysis.trials import _has_column, searched_values
from qsgd_ray.config import Arm, Choice, LogUniform
from qsgd_ray.config.base import Point, Space, value_in
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
    read = [(_point_within(row, arm, spaces), usable_value(row, metric)) for row in rows]
    usable = [(point, metric.sign * value) for point, value in read if point is not None and value is not None]
    n, n_null = len(usable), len(rows) - len(usable)

    def nothing(why: str) -> Importance:
        return Importance(arm.name, n, n_null, None, why)

    if not spaces:
        return nothing("nothing is searched")
    if len(spaces) == 1:
        return nothing(f"{next(iter(spaces))} alone is searched")
    if n < _MIN_TRIALS:
        return nothing(f"{n} of the {_MIN_TRIALS} trials that it takes")
    shares = _shares(usable, spaces)
    if shares is None:
        return nothing("all trials are alike")
    return Importance(arm.name, n, n_null, shares, None)


def _point_within(row: dict[str, Any], arm: Arm, spaces: dict[str, Space]) -> Point | None:
    """Return the point of a row; None outside of the spaces of today, where those of an older version of it may lie."""
    values = searched_values(row, arm)
    point = arm.point_by(lambda path, _: values.get(path, ""))
    point = {path: value for path, value in point.items() if path in spaces}
    return point if all(value_in(spaces[path], value) is not None for path, value in point.items()) else None


def _shares(trials: list[tuple[Point, float]], spaces: dict[str, Space]) -> dict[str, float] | None:
    """Return the share of each setting, of points and their gains; None where nothing can be said."""
    if all(len({point.get(path) for point, _ in trials}) == 1 for path in spaces):
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
                    params=point, distributions={path: distributions[path] for path in point}, value=gain
                )
                for point, gain in trials
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
