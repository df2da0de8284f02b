"""Cache of folders that are made once: data sets and models, for all studies of this machine.

The cache is `$QSGD_RAY_CACHE`, else the platform's folder for caches (Linux: ~/.cache/qsgd-ray). A folder appears whole
or not at all; of two processes that make the same one, the first to finish puts its own into place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from qsgd_ray.storage._atomic import replacing

_VARIABLE = "QSGD_RAY_CACHE"


def _cache_root() -> Path:
    """Return the folder of the cache; it need not exist yet."""
    if named := os.environ.get(_VARIABLE):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("qsgd-ray", appauthor=False)


def cached_folder(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, and fill it where it does not exist yet.

    Args:
        name: path of the folder below the cache. It says everything that decides the content: a folder that exists is
            taken as it is.
        fill: writes the content into the empty folder that it is given.

    Returns:
        The finished folder, made now or by an earlier process.

    Raises:
        OSError: the cache cannot be written. What `fill` raises is passed on, and nothing is left behind.
    """
    target = _cache_root() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    filled = False
    try:
        with replacing(target) as partial:
            partial.mkdir()
            fill(partial)
            filled = True
    except OSError:
        # Another process was quicker: a folder that is not empty is never replaced by a rename.
        if not (filled and target.is_dir()):
            raise
    return target
