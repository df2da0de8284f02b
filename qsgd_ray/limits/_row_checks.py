"""Check a row of a measured size that was read from a folder: the row in, what is wrong with it, or None, out.

The curve and the size that a row belongs to are known by the name of its file, so its settings are compared with them.
Measured numbers go into fits, figures and plans: they must be there and finite.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from qsgd_ray.config import Curve

Row = dict[str, Any]
_SECONDS = ("low_s", "median_s", "high_s", "beside_s")
_OTHERS = ("signal", "signal_low", "signal_high", "step_ratio", "error", "kept")
_COUNTS = ("n_tensors", "n_parameters", "n_circuits", "peak_bytes", "rounds", "batch", "n_qubits", "depth")
# What fits and figures need besides a size's settings.
_NEEDED = {
    "circuits": ("low_s",),
    "optimizer": ("low_s", "n_parameters"),
    "training": ("low_s", "n_tensors"),
    "pool": ("low_s",),
    "signal": ("signal",),
}
_YEARS = (1970, 2199)


def problem_of_row(curve: Curve, size: Any, name: str, row: Row) -> str | None:
    """Return what is wrong with a row, as it goes on after its file; None where nothing is.

    Args:
        curve: the curve that the row belongs to.
        size: its size on the curve; (n_actors, batch) of a pool.
        name: the row's name, by its file.
        row: the row's columns.
    """
    for column, value in ({"kind": curve.kind, "size_id": name} | _settings(curve, size)).items():
        if row[column] != value:
            return f"whose {column} is {row[column]!r}, not {value!r}"
    for column in _NEEDED[curve.kind]:
        if row[column] is None:
            return f"whose {column} is null"
    for column in (*_SECONDS, *_OTHERS):
        value = row[column]
        if value is not None and not (math.isfinite(value) and (value > 0 or column in _OTHERS)):
            return f"whose {column} is {value!r}"
    for column in _COUNTS:
        if row[column] is not None and row[column] < 0:
            return f"whose {column} is {row[column]!r}"
    if (
        curve.kind in ("optimizer", "training")
        and not row["n_parameters" if curve.kind == "optimizer" else "n_tensors"]
    ):
        return "of no parameters"
    moment = row["measured_at"]
    if not isinstance(moment, datetime) or not _YEARS[0] <= moment.year <= _YEARS[1]:
        return "whose measured_at is in no calendar"
    return None


def _settings(curve: Curve, size: Any) -> Row:
    """Return the columns that a curve and a size decide."""
    match curve.kind:
        case "circuits":
            circuit = {"n_qubits": curve.n_qubits, "depth": curve.depth, "shots": curve.shots} | {curve.along: size}
            return circuit | {"engine": curve.engine, "entangle": curve.entangle, "batch": curve.batch}
        case "pool":
            spec = {"n_qubits": curve.n_qubits, "depth": curve.depth, "entangle": curve.entangle}
            return spec | {"n_actors": size[0], "batch": size[1]}
        case "training":
            return {"n_tokens": size}
        case "signal":
            return {"position": size, "depth": curve.depth}
        case _:
            return {}
