"""The settings that a map trains: its axes in; the settings in their order, and an arm and a workload at one, out.

A setting is a value for every axis, {dotted path: value}.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from typing import Any, TypeVar

from pydantic import BaseModel

from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import LogUniform, Uniform
from qsgd_ray.config.stages import WORKLOAD, Map, Value, Values
from qsgd_ray.config.workload import Task
from qsgd_ray.paths import set_value

Setting = dict[str, Value]

M = TypeVar("M", bound=BaseModel)


def settings(design: Map) -> tuple[Setting, ...]:
    """All combinations of the axes' values, the last axis fastest; or `n_points` points that fill the space."""
    if design.n_points is not None:
        return _filling(design.axes, design.n_points, design.seed)
    values = [axis for axis in design.axes.values() if isinstance(axis, tuple)]
    return tuple(dict(zip(design.axes, point, strict=True)) for point in itertools.product(*values))


def _filling(axes: dict[str, Values | LogUniform | Uniform], n: int, seed: int) -> tuple[Setting, ...]:
    # scipy.stats takes a second to load, and a grid does without it.
    from scipy.stats import qmc

    sampler = qmc.Sobol(len(axes), rng=seed)
    with warnings.catch_warnings():
        # Balance beyond that of any n points is had at powers of two only.
        warnings.filterwarnings("ignore", message="The balance properties of Sobol", category=UserWarning)
        points = sampler.random(n)
    return tuple(
        {path: _at(axis, share) for (path, axis), share in zip(axes.items(), point.tolist(), strict=True)}
        for point in points
    )


def _at(axis: Values | LogUniform | Uniform, share: float) -> Value:
    """What lies at this share, from 0 to 1, of an axis."""
    if isinstance(axis, tuple):
        return axis[min(int(share * len(axis)), len(axis) - 1)]
    if isinstance(axis, LogUniform):
        return math.exp(math.log(axis.low) + share * (math.log(axis.high) - math.log(axis.low)))
    return axis.low + share * (axis.high - axis.low)


def of_baseline(setting: Setting) -> Setting:
    """The axes of a setting that plain AdamW has too."""
    return {path: value for path, value in setting.items() if not path.startswith("perturbation.")}


def placed(arm: Arm, workload: Task, setting: Setting) -> tuple[Arm, Task]:
    """The arm and the workload with the fields that a setting names; ValidationError, or KeyError for a field that is
    not there."""
    of_arm = {path: value for path, value in setting.items() if not path.startswith(WORKLOAD)}
    of_workload = {path.removeprefix(WORKLOAD): value for path, value in setting.items() if path not in of_arm}
    return with_fields(arm, of_arm), with_fields(workload, of_workload)


def with_fields(model: M, fields: dict[str, Any]) -> M:
    """`model` with each field, by dotted path, set to its value; KeyError names a path that does not exist."""
    if not fields:
        return model
    tree = model.model_dump()
    for path, value in fields.items():
        set_value(tree, path, value)
    return type(model).model_validate(tree)


def name_of(setting: Setting) -> str:
    """A setting as JSON: what stands in the rows, and the same for equal settings."""
    return json.dumps(setting)
