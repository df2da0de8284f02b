"""A study file in, its `STUDY` out, or one line that says why it is none."""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path

from pydantic import ValidationError

from qsgd_ray.config import Study, StudyError, one_line


def load_study(path: Path) -> Study:
    """The `STUDY` of a study file, or `StudyError` in one line."""
    if not path.is_file():
        raise StudyError(f"study file: got {path}; allowed: a Python file that ends in STUDY = Study(...)")
    try:
        study = runpy.run_path(str(path)).get("STUDY")
    except ValidationError as error:
        raise StudyError(f"{path}, line {_line_in(path, error)}: {one_line(error)}") from None
    except (Exception, SystemExit) as error:  # a study file is the user's code: whatever it raises is bad input
        told = " ".join(str(error).split())
        raise StudyError(f"{path}, line {_line_in(path, error)}: {type(error).__name__}: {told}") from None
    if not isinstance(study, Study):
        came = "nothing" if study is None else type(study).__name__
        raise StudyError(f"{path}: STUDY: got {came}; allowed: STUDY = Study(...)")
    return study


def _line_in(path: Path, error: BaseException) -> int | str:
    """The last line of the study file that the error passed through."""
    if isinstance(error, SyntaxError):
        return error.lineno or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines and lines[-1] is not None else "?"
