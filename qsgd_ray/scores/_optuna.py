"""Rows of Optuna: a study, or its name and storage, in; a row a trial out, columns as in its `trials_dataframe`."""

from __future__ import annotations

from typing import Any

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line
from qsgd_ray.scores._rows import Rows


def study_rows(study: Any, source: str | None = None) -> Rows:
    """Return a row for each trial, with its value, `params_NAME`, `user_attrs_NAME` and its state.

    Args:
        study: an `optuna.Study`.
        source: where it comes from, in words. None: by its name.
    """
    names = ["value"] if len(study.directions) == 1 else [f"values_{i}" for i in range(len(study.directions))]
    rows = []
    for trial in study.get_trials(deepcopy=False):
        row = dict(zip(names, trial.values or [None] * len(names), strict=True))
        row |= {f"params_{name}": value for name, value in trial.params.items()}
        row |= {f"user_attrs_{name}": value for name, value in trial.user_attrs.items()}
        rows.append({"number": trial.number, "state": trial.state.name} | row)
    words = {"MAXIMIZE": "max", "MINIMIZE": "min"}
    directions = {name: words[each.name] for name, each in zip(names, study.directions, strict=True)}
    return Rows.of_dicts(rows, source or f"the Optuna study {study.study_name}", directions)


def stored_rows(words: str) -> Rows:
    """Return the rows of a stored study, `STUDY@STORAGE`, such as `mine@sqlite:///mine.db`.

    Raises:
        StudyError: there is no such study; one line.
    """
    name, _, storage = words.partition("@")
    if not name or not storage:
        raise StudyError(
            f"table: got 'optuna:{words}'; allowed: optuna:STUDY@STORAGE, e.g. optuna:mine@sqlite:///my.db"
        )
    import optuna

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except Exception as error:  # of a package that is none of ours, and of its databases
        reason = one_line(f"{type(error).__name__}: {error}", limit=120)
        raise StudyError(f"table: got 'optuna:{words}'; allowed: a study that is stored there ({reason})") from None
    return study_rows(study)
