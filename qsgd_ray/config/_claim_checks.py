"""Claims and rungs against the study that names them: what it cannot be asked is refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qsgd_ray.config._map_settings import WORKLOAD, map_settings
from qsgd_ray.config._problems import refusal
from qsgd_ray.config.arm import Arm
from qsgd_ray.config.base import LogUniform, Uniform
from qsgd_ray.config.claims import Claim, Contrast, Rung, same_setting
from qsgd_ray.config.errors import _shown
from qsgd_ray.config.metric import Metric, metrics_of
from qsgd_ray.config.stages import Map
from qsgd_ray.config.task import Task
from qsgd_ray.paths import PathError, value_at


def check_claims(
    claims: Sequence[Claim], arms: Sequence[Arm], baseline: str, workload: Task, design: Map | None, decides: Metric
) -> None:
    """Refuse claims that the study cannot be asked.

    A study without a map, or with the map of another arm or other axes, is no reason: a claim of the map is then listed
    as not measured.

    Args:
        claims: the study's.
        arms: all arms, the baseline among them.
        baseline: its name.
        workload: the task.
        design: the study's map; None without one.
        decides: the metric of the study's decision, which a claim without a metric is about.

    Raises:
        PydanticCustomError: an arm, a metric, a setting or an axis that the study does not have; one line.
    """
    names = [claim.name for claim in claims]
    if len(set(names)) != len(names):
        raise refusal(f"claims: each name once; got {', '.join(names)}")
    for claim in claims:
        place = f"claims.{claim.name}"
        _check(place, claim, claim.contrast, claim.metric, arms, baseline, workload, design)
        told = next((one for one in metrics_of(workload) if one.name == claim.metric), decides)
        if claim.unit == "points" and told.kind != "share":
            raise refusal(f"{place}.unit: another than points with the metric {told.name}; got 'points'")
        for part_number, part in enumerate(claim.parts):
            for number, asked in enumerate(part.expects):
                inside = f"{place}.parts.{part_number}.expects.{number}" if asked.contrast or asked.metric else place
                contrast, _, metric = claim.question(asked)
                _check(inside, claim, contrast, metric, arms, baseline, workload, design)


def _check(
    place: str,
    claim: Claim,
    contrast: Contrast,
    metric: str | None,
    arms: Sequence[Arm],
    baseline: str,
    workload: Task,
    design: Map | None,
) -> None:
    by_name = {arm.name: arm for arm in arms}
    against = baseline if contrast.against is None else contrast.against
    if contrast.arm not in by_name or contrast.arm == against:
        beside = "the baseline" if against == baseline else against
        others = ", ".join(name for name in by_name if name != against)
        raise refusal(f"{place}: an arm beside {beside} ({others}); got {_shown(contrast.arm)}")
    if against not in by_name:
        others = ", ".join(name for name in by_name if name != contrast.arm)
        raise refusal(f"{place}.contrast.against: an arm beside {contrast.arm} ({others}); got {_shown(against)}")
    arm = by_name[contrast.arm]
    if claim.about is not None and _value(arm.model_dump(), claim.about) is None:
        raise refusal(f"{place}: an arm with a {claim.about}, which it is about; got {arm.name!r}")
    measured = [one.name for one in metrics_of(workload)]
    if metric is not None and metric not in measured:
        raise refusal(f"{place}.metric: a metric of the workload ({', '.join(measured)}); got {_shown(metric)}")
    if contrast.along is not None:
        _check_axis(place, contrast.along, arm, workload, design)
    if contrast.at is not None and design is not None:
        _check_cells(place, contrast, design)


def _check_axis(place: str, axis: str, arm: Arm, workload: Task, design: Map | None) -> None:
    of_workload = axis.startswith(WORKLOAD)
    tree = workload.model_dump() if of_workload else arm.model_dump()
    if _value(tree, axis.removeprefix(WORKLOAD) if of_workload else axis) is None:
        raise refusal(
            f"{place}.contrast.along: a field of the arm {arm.name} or, below {WORKLOAD[:-1]}, of the workload; "
            f"got {_shown(axis)}"
        )
    values = design.axes.get(axis) if design is not None and design.arm == arm.name else None
    if values is None or isinstance(values, LogUniform | Uniform):
        return
    if words := [value for value in values if isinstance(value, str | bool)]:
        raise refusal(f"{place}.contrast.along: an axis of numbers; got {axis} with {_shown(words[0])}")


def _check_cells(place: str, contrast: Contrast, design: Map) -> None:
    if contrast.arm != design.arm:
        raise refusal(f"{place}.contrast.arm: the map's arm ({design.arm}); got {contrast.arm!r}")
    settings = map_settings(design)
    for field, setting in (("at", contrast.at), ("against_at", contrast.against_at)):
        if setting is not None and not any(same_setting(setting, other) for other in settings):
            axes = ", ".join(design.axes)
            raise refusal(
                f"{place}.contrast.{field}: a setting of the map, one of its values for each of {axes}; "
                f"got {_shown(setting)}"
            )
    if contrast.against_at is not None and contrast.at is not None and same_setting(contrast.at, contrast.against_at):
        raise refusal(f"{place}.contrast.against_at: another setting than at; got {_shown(contrast.against_at)}")


def check_ladder(rungs: Sequence[Rung], arms: Sequence[Arm], baseline: str) -> None:
    """Refuse a ladder of which a rung is no control.

    Args:
        rungs: the study's, from the lowest.
        arms: all arms, the baseline among them.
        baseline: its name.

    Raises:
        PydanticCustomError: a rung whose arm is unknown, the baseline or there twice, or that can explain no arm; one
            line.
    """
    others = [arm.name for arm in arms if arm.name != baseline]
    seen: set[str] = set()
    for number, rung in enumerate(rungs):
        if rung.arm not in others:
            allowed = f"an arm beside the baseline ({', '.join(others)})"
            raise refusal(f"ladder.{number}.arm: {allowed}; got {_shown(rung.arm)}")
        if rung.arm in seen:
            raise refusal(f"ladder.{number}.arm: each arm once; got {rung.arm!r} again")
        seen.add(rung.arm)
        for name in rung.of:
            if name not in others or name == rung.arm:
                beside = ", ".join(other for other in others if other != rung.arm)
                raise refusal(
                    f"ladder.{number}.of: arms beside the baseline and {rung.arm} ({beside}); got {_shown(name)}"
                )
    free = [name for name in others if name not in seen]
    idle = [number for number, rung in enumerate(rungs) if not rung.of]
    if idle and not free:
        raise refusal(
            f"ladder.{idle[0]}.of: the arms whose gain {rungs[idle[0]].arm} may explain, as every arm beside the "
            f"baseline is a rung; got none"
        )


def _value(tree: Any, path: str) -> Any:
    """Return the value at a dotted path of settings; None where there is none."""
    try:
        return value_at(tree, path)
    except PathError:
        return None
