"""Loading of studies: a study file and `path=value` assignments in, the study out, or one line on what is allowed."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from qsgd_ray.config._settings import ALL_FIELDS
from qsgd_ray.config._study_module import run_study_file
from qsgd_ray.config.errors import StudyError, _shortened, _shown, one_line, validation_message
from qsgd_ray.config.json_text import _UnusableJsonError, parse_json
from qsgd_ray.config.limits import Limits
from qsgd_ray.config.study import Study, settings_from_tree
from qsgd_ray.paths import PathError, item_names, set_value


def load_study(path: str | Path, scale: str | None = None) -> Study | Limits:
    """Return the study that a study file defines.

    Args:
        path: a Python file that ends in `STUDY = Study(...)`, or in `STUDY = Limits(...)`. It is run, and can
            import modules beside it.
        scale: which of the file's `SCALES` to take, a dict of studies by name. None: its `STUDY`.

    Raises:
        StudyError: there is no file, it raises, or it defines no study; one line that names the file and its line.

    Example:
        >>> load_study("studies/quick.py").name
        'quick'
    """
    path = Path(path)
    if not path.is_file():
        near = path.with_name(path.name.replace("-", "_"))  # as `qsgd-ray new` names the file of my-study
        what = ", a folder" if path.is_dir() else f", but there is {near}" if near.is_file() else ", which is missing"
        raise StudyError(f"study file: got {path}{what}; allowed: a Python file that ends in STUDY = Study(...)")
    try:
        names = run_study_file(path)
    except ValidationError as error:
        raise StudyError(f"{path}, line {_line_in(path, error)}: {validation_message(error)}") from None
    except (Exception, SystemExit) as error:  # a study file is the user's code: whatever it raises is bad input
        raise StudyError(f"{path}, line {_line_in(path, error)}: {type(error).__name__}: {one_line(error)}") from None
    if scale is None:
        return _checked(names.get("STUDY"), f"{path}: STUDY")
    scales = names.get("SCALES")
    if not isinstance(scales, dict):
        raise StudyError(f"--set scale: got {_shown(scale)}; allowed: no scale, as {path} has no SCALES")
    if scale not in scales:
        raise StudyError(f"--set scale: got {_shown(scale)}; allowed: {', '.join(map(str, scales))}")
    return _checked(scales[scale], f"{path}: SCALES[{scale!r}]")


def _checked(value: Any, place: str) -> Study | Limits:
    """Return the value of a study file's name, `place`, if it is a study."""
    if not isinstance(value, Study | Limits):
        kind = "nothing" if value is None else type(value).__name__
        name = place.rpartition(" ")[2]
        raise StudyError(f"{place}: got {kind}; allowed: {name} = Study(...), or = Limits(...)")
    return value


def _line_in(path: Path, error: BaseException) -> int | str:
    """Return the last line of the study file that the error passed through."""
    if isinstance(error, SyntaxError):
        return error.lineno or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines and lines[-1] is not None else "?"


_SCALE = "scale"

S = TypeVar("S", Study, Limits)


def split_scale(assignments: list[str]) -> tuple[str | None, list[str]]:
    """Return the NAME of the last `scale=NAME` among the assignments, None without one, and the other assignments."""
    pairs = [(assignment, assignment.partition("=")) for assignment in assignments]
    scales = [text for _, (path, _, text) in pairs if path == _SCALE]
    return (scales[-1] if scales else None), [assignment for assignment, (path, *_) in pairs if path != _SCALE]


def with_overrides(study: S, assignments: list[str]) -> S:
    """Return a study with assignments applied, in their order.

    Args:
        study: a study of any kind; it stays as it is.
        assignments: each `PATH=VALUE`, such as `arms.sine.perturbation.lambda_=0.5`, `confirm.seeds=[1,2,3]` or
            `resources.circuit_actors=null`. Items of lists go by index, arms also by name. Values are JSON; a value
            that is no JSON is text. A part that is off has no fields to set: it is switched on whole, as in
            `workload.model.attention={"n_qubits":2}`, whose other fields take their defaults.

    Raises:
        StudyError: a path that does not exist, or a value that is not allowed there.

    Example:
        >>> with_overrides(load_study("studies/quick.py"), ["decision.margin=0.02"]).decision.margin
        0.02
    """
    tree = study.model_dump(mode="json", context=ALL_FIELDS)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise StudyError(f"--set: got {_shown(assignment)}; allowed: path=value, such as search.trials_per_arm=4")
        try:
            value = parse_json(text)
        except _UnusableJsonError as error:
            raise StudyError(f"--set {path}: got {error}; allowed: JSON of fewer digits and levels, or text") from None
        except ValueError:
            value = text
        try:
            set_value(tree, path, value)
        except PathError as error:
            raise StudyError(
                f"--set {_shortened(path, 80)}: got {_shown(error.key)}; "
                f"allowed in {error.parent or 'the study'}: {_allowed_at(error)}"
            ) from None
    return settings_from_tree(tree, type(study))


def _allowed_at(error: PathError) -> str:
    """Return what may follow the part of the path that exists."""
    if isinstance(error.branch, list):
        return ", ".join(str(name or index) for index, name in enumerate(item_names(error.branch)))
    if isinstance(error.branch, dict):
        return ", ".join(error.branch)
    if error.branch is None:
        return f"nothing below null; a part is switched on whole, {error.parent}={{...}}"
    return f"nothing below a plain value ({_shown(error.branch)})"
