"""Base class of all settings: frozen, checked when constructed, wrong values in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from qsgd_ray.config.errors import InvalidSettings

# Context of a serialisation that keeps the fields that are left out of stored studies while they are not set.
ALL_FIELDS = {"fields": "all"}


class _Refusing(type(BaseModel)):  # type: ignore[misc]
    """Class of settings classes. A call of one is a construction by the user, and what it raises is one line.

    pydantic makes settings within others without a call, so their errors keep the path to them.
    """

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*args, **{name: _plain(value) for name, value in fields.items()})
        except ValidationError as error:
            raise InvalidSettings.of(error, [name for name in cls.model_fields if name != "kind"]) from None


if TYPE_CHECKING:
    _Refusable = BaseModel
else:

    class _Refusable(BaseModel, metaclass=_Refusing):
        pass


class Settings(_Refusable):
    """Immutable settings without unknown fields; a wrong value raises `InvalidSettings`, without pydantic's text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _plain(value: Any) -> Any:
    """Return a value with numpy's numbers and arrays as Python's, also those in lists, tuples and dicts."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    return value
