"""Conditions of searched fields: an arm and its spaces in; whether a field is active, or one line of refusal, out.

The words are those of ConfigSpace: a field is conditional on its parents, and active where its condition holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from qsgd_ray.config._problems import refusal
from qsgd_ray.config.base import SPACES, Choice, Point, Space, _same_value, value_in
from qsgd_ray.config.errors import _shown, validation_message

# They decide which other fields have an effect, before any condition is looked at.
_UNCONDITIONAL = ("perturbation.source", "perturbation.scope")


class _Searched(Protocol):
    """An arm, as far as its conditions go."""

    def _every_space(self) -> dict[str, Space]: ...

    def _values(self) -> dict[str, Any]: ...

    def point_at_edges(self, number: int) -> Point: ...

    def at(self, point: Point) -> object: ...


def holds(space: Space, values: Mapping[str, Any]) -> bool:
    """Return True where a field's condition holds, or it has none.

    Args:
        space: of the field.
        values: values of the arm's fields by dotted path. A field that still holds its space meets no condition.
    """
    return all(
        any(_same_value(values.get(parent), one) for one in allowed) for parent, allowed in _parents(space).items()
    )


def may_hold(space: Space, values: Mapping[str, Any]) -> bool:
    """Return True where a field's condition holds at some point of the arm's space.

    Args:
        space: of the field.
        values: values and spaces of the arm's fields by dotted path.
    """
    for parent, allowed in _parents(space).items():
        value = values.get(parent)
        if isinstance(value, SPACES):
            if not may_hold(value, values):
                return False
        elif not any(_same_value(value, one) for one in allowed):
            return False
    return True


def _parents(space: Space) -> dict[str, tuple[Any, ...]]:
    """Return the values by which each field that a space names makes it active."""
    return {
        parent: allowed if isinstance(allowed, tuple) else (allowed,)
        for parent, allowed in (space.active_when or {}).items()
    }


def check_conditions(arm: _Searched) -> None:
    """Refuse an arm with a condition that cannot be asked, or a default that the arm cannot have.

    Raises:
        PydanticCustomError: one line with the field, what came and what is allowed.
    """
    spaces = arm._every_space()
    conditional = {path: space for path, space in spaces.items() if space.active_when is not None}
    if not conditional:
        return
    values = arm._values()
    for path, space in conditional.items():
        if path in _UNCONDITIONAL:
            raise refusal(f"{path}: without active_when, as it decides which other fields have an effect")
        if space.otherwise is None and path.rpartition(".")[2].isdecimal():
            raise refusal(f"{path}.otherwise: a value, as an item of a list cannot be left out; got None")
        for parent, allowed in _parents(space).items():
            _check_parent(f"{path}.active_when", parent, allowed, values)
    _check_cycles(conditional)
    for number in range(max(len(space.edges()) for space in spaces.values())):
        point = arm.point_at_edges(number)
        try:
            arm.at(point)
        except ValidationError as error:
            fields = ", ".join(f"{path} {_shown(value)}" for path, value in point.items())
            raise refusal(f"points that an arm can have; with {fields}: {validation_message(error)}") from None


def _check_parent(field: str, parent: str, allowed: tuple[Any, ...], values: Mapping[str, Any]) -> None:
    if parent == "name" or parent not in values:
        known = ", ".join(path for path, value in values.items() if path != "name" and value is not None)
        raise refusal(f"{field}: fields of the arm ({known}); got {_shown(parent)}")
    value = values[parent]
    if isinstance(value, SPACES) and not isinstance(value, Choice):
        raise refusal(f"{field}: fields that hold one value or a Choice; got {_shown(parent)}, a range")
    if isinstance(value, Choice):
        for one in allowed:
            if value_in(value, one) is None:
                options = ", ".join(map(repr, value.options))
                raise refusal(f"{field}.{parent}: options of its Choice ({options:.100}); got {_shown(one)}")


def _check_cycles(conditional: Mapping[str, Space]) -> None:
    """Refuse conditions that go round in a circle."""
    for first in conditional:
        open_ = [first]
        seen: set[str] = set()
        while open_:
            for parent in conditional[open_.pop()].active_when or {}:
                if parent == first:
                    raise refusal(f"{first}.active_when: fields that do not depend on {first} themselves; got a cycle")
                if parent in conditional and parent not in seen:
                    seen.add(parent)
                    open_.append(parent)
