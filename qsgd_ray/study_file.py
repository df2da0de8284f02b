"""A study file in, its `STUDY` out, or one line that says why it is none.

A question of several sizes ends in `SCALES = {"short": Study(...), ...}` besides: `scale` then picks one of them.
"""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qsgd_ray.config import Limits, Study, StudyError, one_line


def load_study(path: Path, scale: str | None = None) -> Study | Limits:
    """The `STUDY` of a study file, or the one of its `SCALES` that is named; `StudyError` in one line."""
    if not path.is_file():
        raise StudyError(f"study file: got {path}; allowed: a Python file that ends in STUDY = Study(...)")
    try:
        names = runpy.run_path(str(path))
    except ValidationError as error:
        raise StudyError(f"{path}, line {_line_in(path, error)}: {one_line(error)}") from None
    except (Exception, SystemExit) as error:  # a study file is the user's code: whatever it raises is bad input
        told = " ".join(str(error).split())
        raise StudyError(f"{path}, line {_line_in(path, error)}: {type(error).__name__}: {told}") from None
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
