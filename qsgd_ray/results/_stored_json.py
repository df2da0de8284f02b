"""Checks of the JSON files beside the rows: an object in; nothing out, or one line on the file and its field."""

from __future__ import annotations

from typing import Any

from qsgd_ray.storage import refused


def check_provenance(provenance: dict[str, Any], place: object) -> None:
    """Raise StudyError where the runs that a provenance lists are no objects, or their times no text.

    Args:
        provenance: content of provenance.json.
        place: path or URI of the file.
    """
    resumed = provenance.get("resumed", [])
    if not isinstance(resumed, list) or not all(isinstance(run, dict) for run in resumed):
        raise refused(place, "whose resumed is no list of runs", "a list of objects")
    for run in (provenance, *resumed):
        if not isinstance(run.get("started_at", ""), str):
            raise refused(place, f"whose started_at is {run['started_at']!r}", "a time in ISO 8601")


def check_version(fields: dict[str, Any]) -> None:
    """Raise ValueError, with the field, where the fields of a study's version are of another kind."""
    kinds = {"name": str, "since": str, "trials_before": int, "changed": list, "study": dict}
    if fields.keys() != kinds.keys():
        raise ValueError(f"fields {', '.join(fields) or 'none'} in place of {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(fields[name], kind):
            raise ValueError(f"{name} is {fields[name]!r}")
    if not all(isinstance(change, str) for change in fields["changed"]):
        raise ValueError("changed is no list of texts")
