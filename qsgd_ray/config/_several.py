"""Several workloads in one study: a study with `workloads` in; one ordinary study a workload, its part, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from qsgd_ray.config._numbers import MOST_ITEMS
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings
from qsgd_ray.config.base import Name
from qsgd_ray.config.errors import _shown, validation_message
from qsgd_ray.config.task import Task

S = TypeVar("S", bound=Settings)

# That of a part is STUDY/WORKLOAD, the folder of its results below those of the study.
StudyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}(/[a-z0-9][a-z0-9_-]{0,39})?$")]
Workloads = Annotated[dict[Name, Task], Field(min_length=1, max_length=MOST_ITEMS)]

# Folders that lie among a study's results for another reason.
_TAKEN = ("checkpoints", "measurements", "ray", "studies", "tensorboard", "trials")


def parts_of(study: S) -> dict[str, S]:
    """Return the studies of one workload each that a study with `workloads` consists of, by the workload's name.

    Raises:
        ValidationError: a field does not go with a workload.
    """
    return {name: _part(study, name) for name in _workloads(study)}


def _part(study: S, name: str) -> S:
    decision: Any = study.decision  # type: ignore[attr-defined]
    margin = decision.margins.get(name, decision.margin)
    budget: Any = study.budget  # type: ignore[attr-defined]
    fields = dict(study) | {
        "name": f"{study.name}/{name}",  # type: ignore[attr-defined]
        "workload": _workloads(study)[name],
        "workloads": None,
        "decision": decision.model_copy(update={"margin": margin, "margins": {}}),
        "budget": None if budget is None else budget.share(len(_workloads(study))),
    }
    return type(study).model_validate(fields)


def _workloads(study: Any) -> Mapping[str, Task]:
    workloads: Mapping[str, Task] = study.workloads
    return workloads


def check_parts(study: Any) -> None:
    """Refuse a study with `workloads` of which a part is no study; what is wrong in all of them is said without a name.

    Args:
        study: its fields, each checked by itself.

    Raises:
        PydanticCustomError: one line.
    """
    names = [*_workloads(study)]
    if study.workload is not None:
        raise refusal(f"workloads: in place of workload, not beside it; got both, with {', '.join(names)}")
    if "/" in study.name:
        raise refusal(f"name: one without / of a study with workloads, whose parts have it; got {_shown(study.name)}")
    if taken := [name for name in names if name in _TAKEN]:
        raise refusal(f"workloads: names that are no folders of a study ({', '.join(_TAKEN)}); got {taken[0]!r}")
    if odd := [name for name in study.decision.margins if name not in names]:
        raise refusal(f"decision.margins: names of workloads ({', '.join(names)}); got {_shown(odd[0])}")
    problems: dict[str, str] = {}
    for name in names:
        try:
            _part(study, name)
        except ValidationError as error:
            problems[name] = validation_message(error)
    if problems:
        name, problem = next(iter(problems.items()))
        shared = len(problems) == len(names) and len(set(problems.values())) == 1
        raise refusal(problem if shared else _placed(name, problem))


def _placed(name: str, problem: str) -> str:
    if problem.startswith("workload."):
        return f"workloads.{name}.{problem.removeprefix('workload.')}"
    return f"workloads.{name}: {problem}"


def without_unused(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a study's JSON with the one of `workload` and `workloads` that it has: one of before stays as it was."""
    unused = "workloads" if tree.get("workloads") is None else "workload"
    return {name: value for name, value in tree.items() if name != unused}
