"""A study and `path=value` assignments in, the changed study out; or one line that says what is allowed there."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from qsgd_ray.config import Limits, Study, StudyError, from_tree

SCALE = "scale"

S = TypeVar("S", Study, Limits)


def asked_scale(assignments: list[str]) -> tuple[str | None, list[str]]:
    """The last `scale=NAME` among the assignments (None: there is none), and the others."""
    scales = [text for path, _, text in (one.partition("=") for one in assignments) if path == SCALE]
    return (scales[-1] if scales else None), [one for one in assignments if one.partition("=")[0] != SCALE]


def with_overrides(study: S, assignments: list[str]) -> S:
    """`study` with each `path=value` applied; list items go by index, arms also by name.

    `arms.sine.perturbation.lambda_=0.5`, `confirm.seeds=[1,2,3]`, `resources.circuit_actors=null`: values are JSON,
    and what is no JSON is taken as text. A part that is off has no fields to set: it is switched on whole, as in
    `workload.model.attention={"n_qubits":2}`, what is left out taking its default.
    """
    tree = study.model_dump(mode="json")
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise StudyError(f"--set: got {assignment!r}; allowed: path=value, such as search.trials_per_arm=4")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        _assign(tree, path, value)
    return from_tree(tree, type(study))


def _assign(tree: Any, path: str, value: Any) -> None:
    branch = tree
    walked: list[str] = []
    *parents, leaf = path.split(".")
    for key in parents:
        branch = branch[_key(branch, key, walked, path)]
        walked.append(key)
    branch[_key(branch, leaf, walked, path)] = value


def _key(branch: Any, key: str, walked: list[str], path: str) -> str | int:
    if isinstance(branch, dict) and key in branch:
        return key
    if isinstance(branch, list):
        names = [item.get("name") if isinstance(item, dict) else None for item in branch]
        if key in names:
            return names.index(key)
        if key.isdecimal() and int(key) < len(branch):
            return int(key)
        allowed = ", ".join(name or str(index) for index, name in enumerate(names))
    elif isinstance(branch, dict):
        allowed = ", ".join(branch)
    elif branch is None:
        allowed = f"nothing below null; a part is switched on whole, {'.'.join(walked)}={{...}}"
    else:
        allowed = f"nothing below a plain value ({branch!r})"
    where = ".".join(walked) or "the study"
    raise StudyError(f"--set {path}: got {key!r}; allowed in {where}: {allowed}")
