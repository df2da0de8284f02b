"""The start of the arms' searches: a study and its provenance in; sentences on what an arm knew beforehand, out.

Known points and a warm start spend none of an arm's budget, so arms that have them unequally are not searched alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsgd_ray.config import Study
from qsgd_ray.results import StudyTables

_UNEQUAL = "the arms' searches did not start alike"


def _start_sentences(tables: StudyTables) -> list[str]:
    """Return a sentence on known points and one on a warm start, where the study has them.

    Each ends with a remark where the arms that are searched have them unequally.

    Args:
        tables: the study, and the provenance of its runs.
    """
    return [*_known_points(tables.study), *_warm_start(tables)]


def _is_unequal(tables: StudyTables) -> bool:
    """Return True where the arms' searches did not start alike, as far as it is known."""
    return any(_UNEQUAL in sentence for sentence in _start_sentences(tables))


def _known_points(study: Study) -> list[str]:
    known = {arm.name: len(study.search.known_points.get(arm.name, ())) for arm in study.arms if arm.spaces()}
    if not any(known.values()):
        return []
    text = f"Known points were tried first: {_counts(known)}"
    return [f"{text}; {_UNEQUAL}." if len({*known.values()}) > 1 else f"{text}."]


def _warm_start(tables: StudyTables) -> list[str]:
    study, runs = tables.study, [tables.provenance, *tables.provenance.get("resumed", [])]
    told = [run for run in runs if isinstance(run.get("warm_start"), str)]
    if study.search.warm_start is None or not told:
        return []
    text, taken = told[-1]["warm_start"].removesuffix("."), told[-1].get("warm_start_trials")
    if not isinstance(taken, Mapping):  # of a run of an earlier version, which kept the sentence alone
        return [f"{text}."]
    counts = {arm.name: taken.get(arm.name, 0) for arm in study.arms if arm.spaces()}
    return [f"{text}; {_UNEQUAL}." if len({*map(str, counts.values())}) > 1 else f"{text}."]


def _counts(by_arm: Mapping[str, Any]) -> str:
    return ", ".join(f"{count or 'none'} of {arm}" for arm, count in by_arm.items())
