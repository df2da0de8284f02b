"""A study and `path=value` assignments in, the changed study out; or one line that says what is allowed there."""

from __future__ import annotations

import json
import runpy
import traceback
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from qsgd_ray.config.errors import StudyError, one_line, validation_message
from qsgd_ray.config.limits import Limits
from qsgd_ray.config.study import Study, from_tree
from qsgd_ray.paths import PathError, item_names, set_value


def load_study(path: Path, scale: str | None = None) -> Study | Limits:
    """The `STUDY` of a study file, or the one of its `SCALES` that is named; `StudyError` in one line."""
    if not path.is_file():
        raise StudyError(f"study file: got {path}; allowed: a Python file that ends in STUDY = Study(...)")
    try:
        names = runpy.run_path(str(path))
    except ValidationError as error:
        raise StudyError(f"{path}, line {_line_in(path, error)}: {validation_message(error)}") from None
    except (Exception, SystemExit) as error:  # a study file is the user's code: whatever it raises is bad input
        raise StudyError(f"{path}, line {_line_in(path, error)}: {type(error).__name__}: {one_line(error)}") from None
    if scale is None:
        return _a_study(names.get("STUDY"), f"{path}: STUDY")
    scales = names.get("SCALES")
    if not isinstance(scales, dict):
        raise StudyError(f"--set scale: got {scale!r}; allowed: no scale, as {path} has no SCALES")
    if scale not in scales:
        raise StudyError(f"--set scale: got {scale!r}; allowed: {', '.join(map(str, scales))}")
    return _a_study(scales[scale], f"{path}: SCALES[{scale!r}]")


def _a_study(found: Any, place: str) -> Study | Limits:
    if not isinstance(found, Study | Limits):
        came = "nothing" if found is None else type(found).__name__
        name = place.rpartition(" ")[2]
        raise StudyError(f"{place}: got {came}; allowed: {name} = Study(...), or = Limits(...)")
    return found


def _line_in(path: Path, error: BaseException) -> int | str:
    """The last line of the study file that the error passed through."""
    if isinstance(error, SyntaxError):
        return error.lineno or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines and lines[-1] is not None else "?"


SCALE = "scale"

S = TypeVar("S", Study, Limits)


def asked_scale(assignments: list[str]) -> tuple[str | None, list[str]]:
    """The last `scale=NAME` among the assignments (None: there is none), and the others."""
    scales = [text for path, _, text in (one.partition("=") for one in assignments) if path == SCALE]
    return (scales[-1] if scales else None), [one for one in assignments if one.partition("=")[0] != SCALE]


def with_overrides(study: S, assignments: list[str]) -> S:
    """`study` with each `path=value` applied; list items go by index, arms also by name.

    `arms.sine.perturbation.lambda_=0.5`, `confirm.seeds=[1,2,3]`, `resources.circuit_actors=null`: values are JSON,
    and what is no JSON is taken as text. A part that is off has no fields to set: it is switched on whole, as in
    `workload.model.attention={"n_qubits":2}`, what is left out taking its default.
    """
    tree = study.model_dump(mode="json")
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise StudyError(f"--set: got {assignment!r}; allowed: path=value, such as search.trials_per_arm=4")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        try:
            set_value(tree, path, value)
        except PathError as error:
            raise StudyError(
                f"--set {path}: got {error.key!r}; allowed in {error.parent or 'the study'}: {_allowed_at(error)}"
            ) from None
    return from_tree(tree, type(study))


def _allowed_at(error: PathError) -> str:
    """Return what may follow the part of the path that exists."""
    if isinstance(error.branch, list):
        return ", ".join(name or str(index) for index, name in enumerate(item_names(error.branch)))
    if isinstance(error.branch, dict):
        return ", ".join(error.branch)
    if error.branch is None:
        return f"nothing below null; a part is switched on whole, {error.parent}={{...}}"
    return f"nothing below a plain value ({error.branch!r})"
