"""Base class of all settings: frozen, checked when constructed, wrong values in one line."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from qsgd_ray.config.errors import InvalidSettings


class Settings(BaseModel):
    """Immutable settings without unknown fields; a wrong value raises `InvalidSettings`, without pydantic's text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise InvalidSettings.of(error) from None

    # Else pydantic would call it for settings within others too, and their errors would lose the path to them.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
