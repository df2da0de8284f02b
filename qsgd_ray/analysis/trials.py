"""Trials of a study: rows in; how they ended, the errors that they report, and where the search looked, out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from qsgd_ray.analysis._rows import Row, has_ended, usable_value
from qsgd_ray.analysis.metric import Split, metric_value
from qsgd_ray.config import STAGES, Arm
from qsgd_ray.config.errors import one_line
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.outcome import Ending, environment_error, error_lines, user_error
from qsgd_ray.paths import PathError, value_at
from qsgd_ray.results import StudyTables

_LONGEST_ERROR = 200
# Paths of settings that stand together in the column `optimizer_settings`, and of those that only the whole trial has;
# of others each has a column of its own.
_OF_OPTIMIZER = "optimizer."
_OF_WORKLOAD = "workload."


def _has_column(names: Collection[str], path: str) -> bool:
    """Return True where the trials' table tells the values of a setting.

    Args:
        names: of the table's columns.
        path: of a setting of an arm.
    """
    return path.startswith(_OF_OPTIMIZER) or "trial" in names or path.rpartition(".")[2] in names


def _searched_value(row: Row, path: str) -> Any:
    """Return the value of an arm's setting in a trial's row; None where it has no effect there, or is not told.

    Args:
        row: of the table `trials`.
        path: of the setting: `learning_rate`, `perturbation.lambda_`, `optimizer.lr` and `workload.width` are some.

    Example:
        >>> _searched_value({"optimizer_settings": '{"name": "sgd", "lr": 0.1}'}, "optimizer.lr")
        0.1
    """
    try:
        if path.startswith(_OF_OPTIMIZER):
            return value_at(parse_json(row["optimizer_settings"] or "{}"), path.removeprefix(_OF_OPTIMIZER))
        if path.startswith(_OF_WORKLOAD) or path.rpartition(".")[2] not in row:
            return value_at(parse_json(row["trial"] or "{}"), f"arm.{path}")
    except (PathError, ValueError):
        return None
    return row[path.rpartition(".")[2]]


def searched_values(row: Row, arm: Arm) -> dict[str, Any]:
    """Return the values that a trial's row has of an arm's searched settings, by dotted path.

    Args:
        row: of the table `trials`.
        arm: its spaces name the settings. One that the row has no value of is left out.
    """
    values = {path: _searched_value(row, path) for path in arm.spaces()}
    return {path: value for path, value in values.items() if value is not None}


@dataclass(frozen=True)
class EndingCounts:
    """Counts of how the trials of one stage and arm ended.

    Attributes:
        stage: `search`, `confirm` or `map`.
        arm: its name.
        endings: trials by ending.
        n_trials: trials with a row.
        n_null: trials without the value that the stage is judged by: of test data in the confirmation, else of
            validation data.
        n_planned: trials that the study plans.
        epochs: run by all trials together.
    """

    stage: str
    arm: str
    endings: dict[str, int]
    n_trials: int
    n_null: int
    n_planned: int
    epochs: int


def ending_counts(tables: StudyTables) -> tuple[EndingCounts, ...]:
    """Return the counts of every stage and arm, search first; the confirmation alone is counted by test data."""
    counts, metric = [], tables.study.metric
    for stage in STAGES:
        split: Split = "test" if stage == "confirm" else "validation"
        for arm in tables.study.arms:
            rows = tables.rows(stage, arm.name)
            counts.append(
                EndingCounts(
                    stage=stage,
                    arm=arm.name,
                    endings=dict(Counter(row["ending"] for row in rows)),
                    n_trials=len(rows),
                    n_null=sum(metric_value(row, split, metric) is None for row in rows),
                    n_planned=tables.study.planned(stage, arm),
                    epochs=sum(row["epochs_run"] or 0 for row in rows),
                )
            )
    return tuple(counts)


def trials_with_errors(tables: StudyTables) -> tuple[Row, ...]:
    """Return the rows of the trials that report an error, by stage and arm in the study's order."""
    arms = [arm.name for arm in tables.study.arms]
    return tuple(row for stage in STAGES for arm in arms for row in tables.rows(stage, arm) if row["error"])


def _missing_results(tables: StudyTables) -> tuple[str, ...]:
    """Return a sentence for each arm whose runs all ended in one error, or of which some lacked something.

    The confirmation is looked at, and the search of an arm that has none.
    """
    sentences = []
    for arm in tables.study.arms:
        rows = next((found for stage in ("confirm", "search") if (found := tables.rows(stage, arm.name))), [])
        errors = Counter(line for row in rows if (line := _error_line(row)) is not None)
        if not errors:
            continue
        line, count = errors.most_common(1)[0]
        if count == len(rows):
            runs = "The one run" if count == 1 else f"All {count} runs"
            sentence = f"{runs} of {arm.name} ended in the same error, so nothing is known of this arm: {line}."
        elif unavailable := sum(not has_ended(row) for row in rows if row["error"]):
            sentence = f"{unavailable} of {len(rows)} runs of {arm.name} have no result: {line}."
        elif any(user_error(row["error"]) for row in rows):
            sentence = f"{errors.total()} of {len(rows)} runs of {arm.name} failed: {line}."
        else:
            continue
        if any(environment_error(row["error"]) for row in rows):
            sentence += " It tells of the machine, not of the arm, and counts as no result."
            if any(row["ending"] == Ending.UNAVAILABLE for row in rows):
                sentence += " The same command runs these again."
        sentences.append(sentence)
    return tuple(sentences)


def _error_line(row: Row) -> str | None:
    """Return the line that says why a run raised: its environment's where that is to blame; None without an error."""
    if not row["error"]:
        return None
    lines = error_lines(row["error"]) or [one_line(row["error"], part="last")]
    return one_line(user_error(row["error"]) or environment_error(row["error"]) or lines[0], limit=_LONGEST_ERROR)


@dataclass(frozen=True)
class SearchTrial:
    """One trial of an arm's search.

    Attributes:
        arm: its name.
        number: of the trial within the arm's search, from 0.
        ending: how the trial ended.
        epochs: how many it ran.
        learning_rate: > 0.
        lambda_: strength of the perturbation; None or 0 where nothing is perturbed.
        value: final validation value of the metric, in its unit; None where the trial diverged, failed, was lost or
            has none.
    """

    arm: str
    number: int
    ending: Ending
    epochs: int
    learning_rate: float
    lambda_: float | None
    value: float | None


def search_trials(tables: StudyTables) -> dict[str, tuple[SearchTrial, ...]]:
    """Return the search trials of every arm by its name, in the study's order; arms without a search have none."""
    metric = tables.study.metric
    return {
        arm.name: tuple(
            SearchTrial(
                arm=arm.name,
                number=row["number"],
                ending=Ending(row["ending"]),
                epochs=row["epochs_run"],
                learning_rate=row["learning_rate"],
                lambda_=row["lambda_"],
                value=usable_value(row, metric),
            )
            for row in tables.rows("search", arm.name)
        )
        for arm in tables.study.arms
    }
