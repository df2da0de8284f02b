"""Rows of Ray Tune: a `ResultGrid` in, a row a trial out, with `config/NAME` beside its last metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qsgd_ray.scores._rows import Rows


def grid_rows(grid: Any) -> Rows:
    """Return a row for each trial of a grid; one that ended in an error is known as such."""
    rows = [_row(grid[index]) for index in range(len(grid))]
    return Rows.of_dicts(rows, f"a ResultGrid of {len(rows)} trials")


def _row(result: Any) -> dict[str, Any]:
    row = dict(result.metrics or {})
    row.pop("config", None)
    row |= {f"config/{name}": value for name, value in _leaves(result.config or {})}
    return row | {"state": "error" if result.error else "terminated"}


def _leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}/")
        else:
            yield f"{before}{name}", value
