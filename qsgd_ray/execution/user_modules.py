"""Modules of the user's that Ray brings to its workers: a study in; the runtime environment of its job out.

They travel by `py_modules`: Ray uploads them when this process connects, and a worker imports that copy. Nothing of
them is stored among the results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qsgd_ray.config import OwnTask, Study
from qsgd_ray.config.own_task import code

# Ray tells a submitted job its runtime environment by the first, and takes ours beside it where the second is "1"
# (ray/_private/worker.py, 2.60): without it one field of both is an error, even with other modules in it.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"


@contextmanager
def runtime_env_of(study: Study) -> Iterator[dict[str, Any] | None]:
    """Yield the runtime environment with which this process connects; None where no module has to travel.

    Args:
        study: a task of the user's own brings its module, and those beside it that it imports.
    """
    modules = _modules(study)
    if not modules:
        yield None
        return
    of_job = json.loads(os.environ.get(_JOB_CONFIG) or "{}").get("runtime_env") or {}
    before = os.environ.get(_OVERRIDE)
    if of_job.get("py_modules"):
        os.environ[_OVERRIDE] = "1"
    try:
        yield {"py_modules": [*of_job.get("py_modules", []), *modules]}
    finally:
        if before is None:
            os.environ.pop(_OVERRIDE, None)
        else:
            os.environ[_OVERRIDE] = before


def _modules(study: Study) -> list[str]:
    """Return the files and the folders of packages that the task's class is imported from."""
    if not isinstance(study.workload, OwnTask):
        return []
    found = code(type(study.workload))
    return sorted({str(found.root / file.relative_to(found.root).parts[0]) for file in found.files})
