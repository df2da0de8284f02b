"""Settings that a map trains: its axes in; the settings in their order, and arm and workload at one of them, out."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any, TypeVar

from pydantic import BaseModel

from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import LogUniform, Uniform
from qsgd_ray.config.stages import Map, Setting, Value, Values
from qsgd_ray.config.task import Task
from qsgd_ray.paths import set_value

# Axes whose path begins so are fields of the workload; the others are fields of the arm.
WORKLOAD = "workload."

_M = TypeVar("_M", bound=BaseModel)


def map_settings(design: Map) -> tuple[Setting, ...]:
    """Return all combinations of the axes' values, the last axis fastest; or `n_points` that fill the space."""
    if design.n_points is not None:
        return _filling(design.axes, design.n_points, design.seed)
    values = [axis for axis in design.axes.values() if isinstance(axis, tuple)]
    return tuple(dict(zip(design.axes, point, strict=True)) for point in itertools.product(*values))


def _filling(axes: dict[str, Values | LogUniform | Uniform], n: int, seed: int) -> tuple[Setting, ...]:
    """Return n scrambled Sobol points (Owen 1995), each coordinate brought to its axis."""
    # scipy.stats takes a second to load, and a grid does without it.
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(axes), rng=seed)
    with warnings.catch_warnings():
        # Balance beyond that of any n points is had at powers of two only.
        warnings.filterwarnings("ignore", message="The balance properties of Sobol", category=UserWarning)
        points = sampler.random(n)
    return tuple(
        {path: _value_at(axis, share) for (path, axis), share in zip(axes.items(), point.tolist(), strict=True)}
        for point in points
    )


def _value_at(axis: Values | LogUniform | Uniform, share: float) -> Value:
    """Return the value at this share, in [0, 1), of an axis."""
    if isinstance(axis, tuple):
        return axis[min(int(share * len(axis)), len(axis) - 1)]
    if isinstance(axis, LogUniform):
        return math.exp(math.log(axis.low) + share * (math.log(axis.high) - math.log(axis.low)))
    return axis.low + share * (axis.high - axis.low)


def with_setting(arm: Arm, workload: Task, setting: Setting) -> tuple[Arm, Task]:
    """Return the arm and the workload with the fields that a setting names.

    Raises:
        PathError: there is no such field; a KeyError whose argument is the path.
        ValidationError: the field cannot have this value.
    """
    of_arm = {path: value for path, value in setting.items() if not path.startswith(WORKLOAD)}
    of_workload = {path.removeprefix(WORKLOAD): value for path, value in setting.items() if path not in of_arm}
    return _with_fields(arm, of_arm), _with_fields(workload, of_workload)


def _with_fields(settings: _M, fields: dict[str, Any]) -> _M:
    if not fields:
        return settings
    tree = settings.model_dump()
    for path, value in fields.items():
        set_value(tree, path, value)
    return type(settings).model_validate(tree)
