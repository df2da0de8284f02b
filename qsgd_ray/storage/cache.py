"""What is made once and kept: a name and a function that fills a folder come in, the finished folder goes out.

The cache is `$QSGD_RAY_CACHE`, else the platform's folder for caches (Linux: ~/.cache/qsgd-ray). A folder appears whole
or not at all; of two processes that make the same one at once, the first to finish keeps its own.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

VARIABLE = "QSGD_RAY_CACHE"


def cache_folder() -> Path:
    """Where things are kept; it need not exist yet."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("qsgd-ray", appauthor=False)


def made_once(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, which `fill` has filled, now or in an earlier process.

    `name` says all that decides the content: a folder that is there is taken as it is. OSError: it cannot be written.
    """
    target = cache_folder() / name
    if target.is_dir():
        return target
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        fill(partial)
        try:
            partial.rename(target)
        except OSError:
            # Another process was quicker: a folder that is not empty is never replaced by a rename.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
