"""Tasks that installed packages bring: the name of an entry point in; the class out."""

from __future__ import annotations

import importlib.metadata

from qsgd_ray.config.errors import StudyError, _shown, one_line
from qsgd_ray.config.own_task import OwnTask

_GROUP = "qsgd_ray.workloads"


def workload_class(name: str) -> type[OwnTask]:
    """Return the class of a task that an installed package offers by an entry point of the group `qsgd_ray.workloads`.

    A study file calls it; a results folder never does.

    Args:
        name: of the entry point. In a package's pyproject.toml: `[project.entry-points."qsgd_ray.workloads"]` with
            `NAME = "module:Class"`.

    Raises:
        StudyError: no package offers it, it cannot be imported, or it is no task.
    """
    points = {point.name: point for point in importlib.metadata.entry_points(group=_GROUP)}
    if name not in points:
        allowed = ", ".join(sorted(points)) or f"none, as no installed package has entry points of the group {_GROUP}"
        raise StudyError(f"workload_class: got {_shown(name)}; allowed: {allowed}")
    point = points[name]
    try:
        kind = point.load()
    except Exception as error:  # the package's own code
        raise StudyError(
            f"workload_class: got {name!r}, whose {point.value} cannot be imported ({one_line(error, limit=120)}); "
            "allowed: a package that can be imported"
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, OwnTask)):
        raise StudyError(
            f"workload_class: got {name!r}, which is {point.value}; allowed: a class derived from SupervisedTask"
        )
    return kind
