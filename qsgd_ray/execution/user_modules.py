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
from qsgd_ray.config.optimizer_class import module_of
from qsgd_ray.config.optimizer_version import own_code
from qsgd_ray.config.own_task import code

# Ray tells a submitted job its runtime environment by the first, and takes ours beside it where the second is "1"
# (ray/_private/worker.py, 2.60): without it one field of both is an error, even with other modules in it.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"


@contextmanager
def runtime_env_of(study: Study) -> Iterator[dict[str, Any] | None]:
    """Yield the runtime environment with which this process connects; None where no module has to travel.

    Args:
        study: a task and optimizers of the user's own bring their modules, and those beside them that they import.
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
    """Return the files and the folders of packages that the study's own classes are imported from."""
    found = [own_code(name) for arm in study.arms for name in arm.optimizer_names if module_of(name) != "torch"]
    found += [code(type(task)) for task in study.all_workloads if isinstance(task, OwnTask)]
    return sorted(
        {
            str(each.root / file.relative_to(each.root).parts[0])
            for each in found
            if each is not None
            for file in each.files
        }
    )
