"""Fields of the workload that an arm has otherwise: paths and values in; the arm's own task out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from qsgd_ray.config._numbers import MOST_ITEMS, Number, Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config.base import SPACES, Choice, LogUniform, Space, Uniform
from qsgd_ray.config.errors import _shown
from qsgd_ray.config.task import StoredTask, Task

_SPACE: TypeAdapter[Any] = TypeAdapter(Space)
_NUMBER: TypeAdapter[Any] = TypeAdapter(Number | Real)
_SPACE_KINDS = ("log_uniform", "uniform", "choice")
# These decide what is compared, or name the class: they are the study's.
_OF_THE_STUDY = ("kind", "code", "measured", "target_accuracy", "data_seed")
_DEEPEST = 8


def _parsed(fields: Any, depth: int = 0) -> dict[str, Any]:
    """Return fields as a tree: `{"model.d_model": 32}` is `{"model": {"d_model": 32}}`."""
    if not isinstance(fields, Mapping) or len(fields) > MOST_ITEMS or depth > _DEEPEST:
        raise refusal("values or spaces by the path of a field of the workload")
    tree: dict[str, Any] = {}
    for path, value in fields.items():
        if not isinstance(path, str) or not all(path.split(".")):
            raise refusal(f"paths of fields, such as width; got {_shown(path)}")
        first, _, rest = path.partition(".")
        if depth == 0 and first in _OF_THE_STUDY:
            raise refusal(f"fields in which arms may differ; got {first!r}, which is the study's")
        new = _parsed({rest: value}, depth + 1) if rest else _value(value, path, depth)
        if first in tree and not (isinstance(tree[first], dict) and isinstance(new, dict)):
            raise refusal(f"each field once; got {path!r} again")
        tree[first] = tree[first] | new if first in tree else new
    return tree


def _value(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, SPACES):
        return value
    if isinstance(value, Mapping) and value.get("kind") in _SPACE_KINDS:
        return _SPACE.validate_python(value)
    if isinstance(value, Mapping):
        return _parsed(value, depth + 1)
    if isinstance(value, list | tuple):
        return [_value(item, path, depth) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    try:
        return _NUMBER.validate_python(value)
    except ValidationError:
        raise refusal(f"plain values and spaces; of {path} got {_shown(value)}") from None


def _written(tree: Any) -> Any:
    if isinstance(tree, BaseModel):
        return tree.model_dump()
    return {name: _written(value) for name, value in tree.items()} if isinstance(tree, dict) else tree


WorkloadFields = Annotated[dict[str, Any], PlainValidator(_parsed), PlainSerializer(_written)]


def with_fields(task: Any, fields: Mapping[str, Any]) -> Task:
    """Return a task with the fields of an arm, each a value.

    Args:
        task: the study's.
        fields: a tree of values.

    Raises:
        KeyError: there is no such field; its argument is the path.
        ValidationError: a field cannot have this value.
    """
    if not fields:
        return task
    tree = task.model_dump()
    _put(tree, fields, "", isinstance(task, StoredTask))
    return type(task).model_validate(tree)


def _put(tree: Any, fields: Mapping[str, Any], parent: str, stored: bool) -> None:
    for name, value in fields.items():
        path = f"{parent}{name}"
        if not isinstance(tree, dict) or name not in tree:
            raise KeyError(path)
        if isinstance(value, Mapping):
            _put(tree[name], value, f"{path}.", stored)
        else:
            # The class that is not there would have made a real number of it.
            whole = stored and type(tree[name]) is float and type(value) is int
            tree[name] = float(value) if whole else value


def examples(fields: Any) -> list[Any]:
    """Return trees of values such as a point may give: one for each edge of each space, and one within each range.

    Args:
        fields: the fields of an arm, which may hold spaces.
    """
    spaces = [*_spaces(fields)]
    if not spaces:
        return [fields]
    probes = [(space, value) for space in spaces for value in _probes(space)]
    return [_filled(fields, space, value) for space, value in probes]


def _spaces(tree: Any) -> list[Any]:
    if isinstance(tree, SPACES):
        return [tree]
    return [space for value in tree.values() for space in _spaces(value)] if isinstance(tree, dict) else []


def _probes(space: Any) -> tuple[Any, ...]:
    if isinstance(space, LogUniform | Uniform):
        return (*space.values_to_check(), space.low + (space.high - space.low) / 2**0.5)
    return space.values_to_check() if isinstance(space, Choice) else ()


def _filled(tree: Any, chosen: Any, value: Any) -> Any:
    """Return a tree in which `chosen` is a value, and every other space its first edge."""
    if isinstance(tree, SPACES):
        return value if tree is chosen else tree.edges()[0]
    return {name: _filled(item, chosen, value) for name, item in tree.items()} if isinstance(tree, dict) else tree
