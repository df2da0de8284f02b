"""Run a study file with the modules beside it in reach: its path in; the names that it defines out."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any


def run_study_file(path: Path) -> dict[str, Any]:
    """Run a file as Python runs a script, which can import what lies beside it, and return the names that it defines.

    Args:
        path: a Python file. Whatever it raises is left alone.
    """
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        return runpy.run_path(str(path))
    finally:
        sys.path.remove(folder)
