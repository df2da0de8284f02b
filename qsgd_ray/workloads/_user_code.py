"""Calls of a user's methods: an exception that passes gets a note on the last line of the user's files.

The note stands in the traceback, so every reader of a trial's row finds the line, also one that lacks the class.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qsgd_ray.config import OwnTask
from qsgd_ray.config.own_task import code
from qsgd_ray.outcome import RAISED_IN


@contextmanager
def user_code(task: OwnTask) -> Iterator[None]:
    """Note on exceptions that leave the block where in the user's files they came from.

    Args:
        task: settings of the class whose method is called in the block.
    """
    try:
        yield
    except Exception as error:  # of whatever kind: it goes on
        files = {str(file) for file in code(type(task)).files}
        own = getattr(sys.modules.get(type(task).__module__), "__file__", None)
        files |= {str(Path(own).resolve())} if own else set()
        frames = [
            one for one in traceback.extract_tb(error.__traceback__) if str(Path(one.filename).resolve()) in files
        ]
        if frames:
            last = frames[-1]
            error.add_note(f"{RAISED_IN}{Path(last.filename).name}, line {last.lineno}, in {last.name}")
        raise
