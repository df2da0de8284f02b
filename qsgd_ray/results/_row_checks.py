"""Checks of rows that are read from a folder: rows of files in; nothing out, or one line on the file and its column.

Rows decide what is removed, shown and run again, and a folder may come from elsewhere. So a row counts only in the file
of its own trial, and with the values that docs/results.md promises of every version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qsgd_ray.config import STAGES
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.outcome import Ending
from qsgd_ray.results.schema import _MEASURED, _NEVER_NULL
from qsgd_ray.storage import refused

# Stage, arm, number or seed, hash (config/trial.py), in the letters that names of arms may have.
_TRIAL_ID = r"(?:search|confirm|map)-[a-z0-9][a-z0-9_-]{0,118}"
TRIAL_ID = re.compile(_TRIAL_ID)
_AN_ID = "search-, confirm- or map-, then a-z, 0-9, - and _"
# Columns with a least value; what is shown and summed must also be finite.
_LEAST = {"number": 0, "epoch": 1, "step": 0, "steps": 0, "epochs_run": 0, "epochs_planned": 0, "workers": 0}
_LEAST |= {"epochs_to_target": 1, "steps_to_target": 0}
_FINITE: tuple[str, ...] = ("learning_rate", "weight_decay", "lambda_", "target_accuracy", "wall_s", "circuit_wait_s")
_FINITE += ("elapsed_s", "seconds_to_target", "circuit_wait_s_to_target")
# Known where the target was reached, and null where it was missed.
_AT_TARGET = ("steps_to_target", "seconds_to_target", "circuit_wait_s_to_target")
# A trial of a task of one's own, which need not measure accuracy.
_OWN_KIND = r'"kind": ?"[A-Za-z0-9_.]+:[A-Za-z0-9_]+"'
# The years 1970 to 2199, which every calendar has.
_FIRST_S, _LAST_S = 0, 7_258_118_400

# Which rows are wrong, what is wrong, and what would be right.
_Problem = tuple[Any, str, str]


def check_rows(
    table: str, rows: pa.Table, files: Sequence[str], lengths: Sequence[int], location: Callable[[str], object]
) -> None:
    """Raise StudyError for the first row that cannot be one of a study.

    Args:
        table: `trials` or `measurements`.
        rows: of files, one after the other, with all columns of the table's schema.
        files: names of these files, without their folder.
        lengths: number of rows in each.
        location: function of a file's name that returns its path or URI.
    """
    ends = np.cumsum(lengths)

    def refuse(row: int, problem: str, allowed: str) -> NoReturn:
        raise refused(location(files[int(np.searchsorted(ends, row, side="right"))]), problem, allowed)

    for column in _NEVER_NULL[table]:
        if rows[column].null_count:
            refuse(_first(pc.is_null(rows[column])), f"whose {column} is null", "a value, which no version leaves out")
    if table == "trials":
        for file, length in zip(files, lengths, strict=True):
            if length != 1 and not is_pack(file):
                raise refused(location(file), f"with {length} rows", "the one row of its trial")
    names = [None if is_pack(file) else file.rpartition(".")[0] for file in files]
    expected = pa.array(np.repeat(np.array(names, dtype=object), lengths), pa.string())
    ids = rows["trial_id"].combine_chunks()
    for wrong, problem, allowed in (*_wrong_ids(ids, expected), *_wrong_values(table, rows)):
        if pc.any(wrong).as_py():
            row = _first(wrong)
            came = rows[problem][row].as_py() if problem in rows.column_names else None
            refuse(row, problem if came is None else f"whose {problem} is {came!r}", allowed)
    if (doubled := _doubled(table, rows, ids)) is not None:
        refuse(doubled, f"with {ids[doubled].as_py()} twice", "each trial once, and each of its epochs")
    texts = {"metrics": (_problem_of_metrics, "numbers by split and name, as JSON")}
    if table == "trials":
        texts["trial"] = (_problem_of_trial, "a trial's settings as JSON")
        texts["setting"] = (_problem_of_setting, "values by the path of a field, as JSON")
        texts["optimizer_settings"] = (_problem_of_setting, "an optimizer's settings as JSON")
    for column, (problem_of, allowed) in texts.items():
        for row, text in enumerate(rows[column].to_pylist()):
            if text is not None and (why := problem_of(text)):
                refuse(row, f"whose {column} is {why}", allowed)


def is_pack(file: str) -> bool:
    """Return True for the name of a file that holds many trials."""
    return file.startswith("packed-")


def _wrong_ids(ids: pa.Array, expected: pa.Array) -> Iterator[_Problem]:
    yield pc.invert(pc.match_substring_regex(ids, rf"\A{_TRIAL_ID}\z")), "trial_id", _AN_ID
    own = pc.is_valid(expected)
    yield pc.and_(own, pc.fill_null(pc.not_equal(ids, expected), False)), "trial_id", "that of the file's name"


def _wrong_values(table: str, rows: pa.Table) -> Iterator[_Problem]:
    yield _outside(rows["stage"], STAGES), "stage", ", ".join(STAGES)
    for column, least in _LEAST.items():
        if column in rows.column_names:
            yield pc.fill_null(pc.less(rows[column], least), False), column, f"{least} and more"
    for column in _FINITE:
        if column in rows.column_names:
            yield pc.fill_null(pc.invert(pc.is_finite(rows[column])), False), column, "a finite number"
    if table == "trials":
        measured = pc.greater(rows["epochs_run"], 0)
        own = pc.fill_null(pc.match_substring_regex(rows["trial"], _OWN_KIND), False)
        bare = pc.and_(pc.and_(measured, pc.is_null(rows["validation_accuracy"])), pc.invert(own))
        yield bare, "whose validation_accuracy is null after an epoch", "a value once there is a measurement"
        yield _outside(rows["ending"], [*map(str, Ending)]), "ending", ", ".join(Ending)
        yield pc.less_equal(rows["learning_rate"], 0), "learning_rate", "more than 0"
        for column in _MEASURED:
            null = pc.and_(measured, pc.is_null(rows[column]))
            yield null, f"whose {column} is null after an epoch", "a value once there is a measurement"
        hit = pc.is_valid(rows["epochs_to_target"])
        for column in _AT_TARGET:
            unequal = pc.not_equal(pc.is_valid(rows[column]), hit)
            yield unequal, f"whose {column} and epochs_to_target disagree", "both or neither, as the target was reached"
        late = pc.fill_null(pc.greater(rows["epochs_to_target"], rows["epochs_planned"]), False)
        yield late, "epochs_to_target", "at most epochs_planned"
        unequal = pc.not_equal(pc.is_valid(rows["optimizer"]), pc.is_valid(rows["optimizer_settings"]))
        yield unequal, "whose optimizer and optimizer_settings disagree", "both or neither"
        mapped = pc.and_(pc.equal(rows["stage"], "map"), pc.is_null(rows["setting"]))
        yield mapped, "whose setting is null in a map", "values by the path of a field, as JSON"
        seconds = pc.divide(rows["started_at"].cast(pa.int64()), 1_000_000)
        wrong = pc.or_(pc.less(seconds, _FIRST_S), pc.greater(seconds, _LAST_S))
        yield pc.fill_null(wrong, False), "whose started_at is in no calendar", "the years 1970 to 2199"


def _outside(column: pa.ChunkedArray, values: Sequence[str]) -> Any:
    return pc.invert(pc.is_in(column, pa.array(values, pa.string())))


def _first(wrong: Any) -> int:
    return int(pc.index(wrong, True).as_py())


def _doubled(table: str, rows: pa.Table, ids: pa.Array) -> int | None:
    """Return the first row whose key an earlier row has, None where there is none."""
    keys = ids.dictionary_encode().indices.to_numpy().astype(np.int64)
    if table == "measurements":
        keys = (keys << 32) + rows["epoch"].to_numpy()
    first = np.unique(keys, return_index=True)[1]
    if len(first) == len(keys):
        return None
    return int(np.setdiff1d(np.arange(len(keys)), first)[0])


def _problem_of_trial(text: str) -> str | None:
    """Return what is wrong with the settings in a row, None where they are those of a trial."""
    try:
        tree = parse_json(text)
    except ValueError as error:
        return f"no JSON that can be read ({error})"
    return None if isinstance(tree, dict) and isinstance(tree.get("arm"), dict) else "JSON of something else"


def _problem_of_setting(text: str) -> str | None:
    """Return what is wrong with the settings of a map or an optimizer in a row, None where they are such."""
    try:
        tree = parse_json(text)
    except ValueError as error:
        return f"no JSON that can be read ({error})"
    return None if isinstance(tree, dict) else "JSON of something else"


def _problem_of_metrics(text: str) -> str | None:
    """Return what is wrong with the further metrics in a row, None where they are some."""
    try:
        tree = parse_json(text)
    except ValueError as error:
        return f"no JSON that can be read ({error})"
    if not isinstance(tree, dict) or not tree.keys() <= {"validation", "test"}:
        return "JSON of something else"
    values = [value for of_split in tree.values() if isinstance(of_split, dict) for value in of_split.values()]
    numbers = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)
    return None if numbers and all(isinstance(one, dict) for one in tree.values()) else "JSON of something else"
