"""Rows of any table: names of columns, and a column's values when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qsgd_ray.config import StudyError
from qsgd_ray.storage import shown

_MOST_NAMES = 12
# Where trackers and tuners put a run's own settings and numbers.
_PREFIXES = (
    "params.",
    "metrics.",
    "tags.",
    "config.",
    "config/",
    "summary.",
    "params_",
    "user_attrs_",
    "hyperparameters/",
)


@dataclass(frozen=True)
class Rows:
    """Rows of a table; values of a column are Python's, None where one is missing.

    Attributes:
        names: of the columns.
        column: function from a column's name to its values, one a row.
        source: where they come from, in words.
        directions: `max` or `min` by column, where the source says which is better.
    """

    names: Sequence[str]
    column: Callable[[str], list[Any]]
    source: str
    directions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_dicts(
        cls, rows: Iterable[Mapping[str, Any]], source: str, directions: Mapping[str, str] | None = None
    ) -> Rows:
        """Return rows that are dicts; a row without a column has None there."""
        kept = [*rows]
        names = list(dict.fromkeys(str(name) for row in kept for name in row))
        return cls(names, lambda name: [row.get(name) for row in kept], source, directions or {})

    def find(self, option: str, name: str) -> str:
        """Return the name of the column that is meant: `name` itself, or the one that ends in it after a prefix.

        Args:
            option: the argument that names it, for a message.
            name: such as `arm`; of MLflow's runs also for `params.arm`, of Ray Tune's for `config/arm`.

        Raises:
            StudyError: there is none, or several.
        """
        if self.names.count(name) > 1:
            raise StudyError(f"{option}: got {name!r}, which two columns are called; allowed: a column's own name")
        if name in self.names:
            return name
        matches = [each for each in self.names if any(each == f"{prefix}{name}" for prefix in _PREFIXES)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise StudyError(f"{option}: got {name!r}; allowed: one of {', '.join(matches)}, which it may mean")
        names = ", ".join(shown(each, 40) for each in self.names[:_MOST_NAMES])
        more = f" and {len(self.names) - _MOST_NAMES} more" if len(self.names) > _MOST_NAMES else ""
        raise StudyError(f"{option}: got {name!r}; allowed: a column ({names or 'there is none'}{more})")
