"""Known points of a search, tried before the sampler's own: a search and its arms in; points, or one line, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsgd_ray.config._conditions import may_hold
from qsgd_ray.config._problems import refusal
from qsgd_ray.config.arm import Arm, fields_without_effect
from qsgd_ray.config.base import SPACES, Choice, Point, Space, value_in
from qsgd_ray.config.errors import _shown
from qsgd_ray.config.stages import Search

_FIELD = "search.known_points"
_PERTURBATION = "perturbation."


def known_points(search: Search, arm: Arm) -> tuple[Point, ...]:
    """Return the points that an arm tries first, in their order, each value as its space writes it.

    Args:
        search: of a study that was checked.
        arm: one of the study's.
    """
    spaces = arm.spaces()
    return tuple(
        {path: value_in(spaces[path], value) for path, value in point.items()}
        for point in search.known_points.get(arm.name, ())
    )


def _check_known_points(search: Search, arms: tuple[Arm, ...]) -> None:
    """Refuse known points of an arm that is not searched, or outside of its space.

    Args:
        search: names the points.
        arms: of the study.

    Raises:
        PydanticCustomError: one line with the field, what came and what is allowed.
    """
    searched = {arm.name: arm for arm in arms if arm.spaces()}
    for name, points in search.known_points.items():
        if name not in searched:
            raise refusal(f"{_FIELD}: names of arms that are searched ({', '.join(searched)}); got {_shown(name)}")
        if len(points) > search.trials_per_arm:
            raise refusal(
                f"{_FIELD}.{name}: at most search.trials_per_arm ({search.trials_per_arm}) points; got {len(points)}"
            )
        for number, point in enumerate(points):
            _check_point(f"{_FIELD}.{name}.{number}", searched[name], point)


def _check_point(field: str, arm: Arm, point: Point) -> None:
    spaces = arm.spaces()
    for path, value in point.items():
        if path not in spaces:
            raise refusal(f"{field}: fields that are searched ({', '.join(spaces)}); got {_shown(path)}")
        if value_in(spaces[path], value) is None:
            raise refusal(f"{field}.{path}: {_range_of(spaces[path])}; got {_shown(value)}")
    values = arm._values() | point
    idle = _idle(values)
    for path in point:
        if path in idle or not may_hold(spaces[path], values):
            raise refusal(f"{field}: fields that have an effect at the point; got {_shown(path)}")


def _idle(values: Mapping[str, Any]) -> set[str]:
    """Return the fields of a perturbation that have no effect, whatever is drawn for those that still hold a space."""
    source, scope = values.get(f"{_PERTURBATION}source"), values.get(f"{_PERTURBATION}scope")
    if source is None or isinstance(source, SPACES):
        return set()
    return {
        f"{_PERTURBATION}{name}"
        for name in fields_without_effect(source, "" if isinstance(scope, SPACES) else str(scope))
    }


def _range_of(space: Space) -> str:
    if isinstance(space, Choice):
        return f"one of {', '.join(map(repr, space.options)):.100}"
    return f"a number from {space.low:g} to {space.high:g}"
