"""Versions of optimizers in the names of trials: a study comes in; it goes out with what its classes come from noted.

An installed class is noted by its package and version, one in a file of the user's by the hash of its code
(config/_code.py). torch's classes have no note: torch's version stands in the provenance, and their trials keep the
names that they always had.
"""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qsgd_ray.config._code import Code, CodeError, code_of, is_installed
from qsgd_ray.config.arm import Arm
from qsgd_ray.config.errors import StudyError
from qsgd_ray.config.optimizer import Groups, Optimizer
from qsgd_ray.config.optimizer_class import PACKAGES, _optimizer_class, module_of
from qsgd_ray.config.study import Study


def with_versions(study: Study, before: Study | None = None) -> Study:
    """Return a study whose optimizers say what their classes come from here.

    Args:
        study: as its file states it.
        before: the study of the folder that it goes on in. What has no version there has rows without one, and gets
            none: an arm of the same name with the same class in the same place. None: a new folder.
    """
    arms = tuple(_arm_with_versions(arm, _arm_named(before, arm.name)) for arm in study.arms)
    return study if arms == study.arms else study.model_copy(update={"arms": arms})


def unversioned(study: Study) -> tuple[str, ...]:
    """Return the arms of a study whose optimizer is of no known version, though its class is not torch's."""
    return tuple(
        arm.name
        for arm in study.arms
        if arm.optimizer is not None
        and any(
            one.version is None and version_of(one.name) is not None
            for _, member in arm.optimizer.members
            for one in (member, *member.inner)
        )
    )


def version_of(name: str) -> str | None:
    """Return what the class of an optimizer comes from; None for torch's, and for one that is not known here.

    Args:
        name: of the class, short or dotted. A class in a file of the user's is imported.

    Example:
        >>> version_of("torch.optim.SGD") is None
        True
    """
    module = module_of(name)
    if module == "torch":
        return None
    if (own := own_code(name)) is not None:
        return f"code {own.digest}"
    package = PACKAGES.get(module, module)
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        brings = importlib.metadata.packages_distributions().get(module)
        return f"{brings[0]} {importlib.metadata.version(brings[0])}" if brings else None


def own_code(name: str) -> Code | None:
    """Return the code of an optimizer that stands in a file of the user's; None for an installed one.

    Args:
        name: of the class, short or dotted. A class that no file states whole has no code that can be told.
    """
    try:
        spec = find_spec(module_of(name))
    except (ImportError, ValueError):  # a study file that is loaded has no specification
        spec = None
    if spec is not None and spec.origin is not None and is_installed(Path(spec.origin).resolve()):
        return None
    try:
        code = code_of(_optimizer_class(name))
    except (StudyError, CodeError):
        return None
    return code if code.files else None


def _arm_named(study: Study | None, name: str) -> Arm | None:
    return next((arm for arm in study.arms if arm.name == name), None) if study is not None else None


def _arm_with_versions(arm: Arm, before: Arm | None) -> Arm:
    if arm.optimizer is None:
        return arm
    was = dict(before.optimizer.members) if before is not None and before.optimizer is not None else {}
    noted = {name: _with_version(one, was.get(name)) for name, one in arm.optimizer.members}
    changed: Any = arm.optimizer.model_copy(update=noted) if isinstance(arm.optimizer, Groups) else noted[""]
    return arm if changed == arm.optimizer else arm.model_copy(update={"optimizer": changed})


def _with_version(optimizer: Optimizer, before: Optimizer | None) -> Optimizer:
    same = before is not None and before.name == optimizer.name
    version = None if same and before is not None and before.version is None else version_of(optimizer.name)
    update: dict[str, Any] = {"version": version}
    for keyword, value in optimizer.settings.items():
        if isinstance(value, Optimizer):
            was = before.settings.get(keyword) if same and before is not None else None
            update[keyword] = _with_version(value, was if isinstance(was, Optimizer) else None)
    return optimizer.model_copy(update=update)
