"""Scores from rows: rows and the names of their columns in; scores by arm and seed, or one line, out."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from qsgd_ray.analysis.scores import Scores, Seed
from qsgd_ray.config import StudyError
from qsgd_ray.scores._rows import Rows
from qsgd_ray.storage import shown

# Words for how a run ended, of this package, W&B, MLflow, Optuna and Ray Tune.
_WITH_RESULT = ("completed", "complete", "finished", "terminated", "success", "succeeded")
_WITHOUT_RESULT = ("failed", "fail", "crashed", "killed", "error", "errored", "diverged", "pruned")
_NOT_ENDED = ("running", "scheduled", "pending", "waiting", "queued", "paused", "preempting", "lost", "unavailable")
_ENDING_COLUMNS = ("ending", "state", "State", "status")


@dataclass(frozen=True)
class Columns:
    """The columns that scores are read from.

    Attributes:
        arm: names the arm of a row.
        seed: names the seed of a row.
        score: names the score of a row.
        state: names how a row's run ended; None: `ending`, `state`, `State` or `status` where all its words are known.
        where: by column the value that a row must have to be read; a number equals its text.
    """

    arm: str
    seed: str
    score: str
    state: str | None = None
    where: Mapping[str, Any] | None = None


def read_scores(rows: Rows, columns: Columns) -> Scores:
    """Return the scores of rows, one run a row.

    A run without a score, or with one that is no finite number, has no result. So has one whose ending says so,
    whatever its score is.

    Raises:
        StudyError: a column is missing; a row has no arm, no seed or no number; or two rows are of one run.
    """
    indices, notes = _chosen(rows, columns.where or {})
    arms, seeds, scores = (
        [rows.column(rows.find(option, name))[i] for i in indices]
        for option, name in (("arm", columns.arm), ("seed", columns.seed), ("score", columns.score))
    )
    endings = _endings(rows, columns.state, indices, notes)
    by_arm: dict[str, dict[Seed, float | None]] = {}
    running: dict[str, set[Seed]] = {}
    no_number = 0
    for row, arm_cell, seed_cell, score_cell, ending in zip(indices, arms, seeds, scores, endings, strict=True):
        arm, seed = _arm(arm_cell, row), _seed(seed_cell, row)
        if seed in by_arm.get(arm, ()) or seed in running.get(arm, ()):
            raise StudyError(
                f"seed: got two rows of arm {shown(arm, 40)} at {shown(seed, 40)}, the second in row {row + 1}; "
                "allowed: one row a run, with its last score (rows are chosen by where)"
            )
        by_arm.setdefault(arm, {})
        if ending in _NOT_ENDED:
            running.setdefault(arm, set()).add(seed)
            continue
        score = _score(score_cell, row)
        no_number += score is None and ending not in _WITHOUT_RESULT
        by_arm[arm][seed] = None if ending in _WITHOUT_RESULT else score
    if no_number:
        notes.append(
            f"{_runs(no_number)} without a finite score {'counts' if no_number == 1 else 'count'} as no result."
        )
    return Scores(by_arm, {arm: frozenset(of_arm) for arm, of_arm in running.items()}, rows.source, tuple(notes))


def _chosen(rows: Rows, where: Mapping[str, Any]) -> tuple[list[int], list[str]]:
    """Return the indices of the rows that have the values asked for, and a note on the others."""
    n_rows = len(rows.column(rows.names[0])) if rows.names else 0
    indices = list(range(n_rows))
    for name, value in where.items():
        cells = rows.column(rows.find("where", name))
        indices = [i for i in indices if cells[i] == value or _text(cells[i]) == _text(value)]
    if not indices:
        what = " and ".join(f"{name}={_text(value)}" for name, value in where.items())
        raise StudyError(f"table: got no row{f' with {what}' if what else ''}; allowed: a row for each run")
    left_out = n_rows - len(indices)
    return indices, [f"{left_out} of {n_rows} rows were left out by where."] if left_out else []


def _endings(rows: Rows, state: str | None, indices: list[int], notes: list[str]) -> list[str]:
    """Return how each run ended, in small letters; empty words where nothing says it."""
    known = {*_WITH_RESULT, *_WITHOUT_RESULT, *_NOT_ENDED}
    names = [rows.find("state", state)] if state is not None else [n for n in _ENDING_COLUMNS if n in rows.names]
    for name in names:
        cells = rows.column(name)
        words = ["" if cells[i] is None else str(getattr(cells[i], "name", cells[i])).lower() for i in indices]
        unknown = [word for word in words if word and word not in known]
        if unknown and state is not None:
            raise StudyError(
                f"state: got {shown(unknown[0], 40)!r}; allowed: {', '.join(_WITH_RESULT[:3])} ..., "
                f"{', '.join(_WITHOUT_RESULT[:4])} ..., {', '.join(_NOT_ENDED[:3])} ..."
            )
        if not unknown and any(words):
            counts = Counter(words)
            lost = {word: counts[word] for word in _WITHOUT_RESULT if counts[word]}
            if lost:
                told = ", ".join(f"{count} {word}" for word, count in lost.items())
                notes.append(f"By the column {name}, {told}: no result, whatever the score.")
            if awaited := {word: counts[word] for word in _NOT_ENDED if counts[word]}:
                told = ", ".join(f"{count} {word}" for word, count in awaited.items())
                notes.append(f"By the column {name}, {told}: not ended yet.")
            return words
    return [""] * len(indices)


def _arm(cell: Any, row: int) -> str:
    if cell is None or cell == "" or cell != cell:
        raise StudyError(f"arm: got nothing in row {row + 1}; allowed: a name in every row (rows are chosen by where)")
    return _text(cell)


def _seed(cell: Any, row: int) -> Seed:
    text = "" if cell is None or cell != cell else _text(cell).strip()
    if not text:
        raise StudyError(f"seed: got nothing in row {row + 1}; allowed: a number or a name in every row")
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else text


def _score(cell: Any, row: int) -> float | None:
    """Return a score; None where there is none, or no finite one."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        if isinstance(cell, bool) or not isinstance(cell, numbers.Real | Decimal | str):
            raise ValueError
        value = float(cell)
    except (ValueError, OverflowError):
        raise StudyError(
            f"score: got {shown(repr(cell), 60)} in row {row + 1}; allowed: a number, or nothing"
        ) from None
    return value if math.isfinite(value) else None


def _text(cell: Any) -> str:
    """Return a cell as text; a whole number is written alike, however a file stores it."""
    if isinstance(cell, float | Decimal) and math.isfinite(cell) and cell == int(cell):
        return str(int(cell))
    return str(cell)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
