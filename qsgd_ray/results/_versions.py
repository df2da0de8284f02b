"""Versions of a folder's study: every one that trials were run for, and the changes between them.

    DIR/study.json                 the study as it is now
    DIR/studies/001-<hash>.json    each version: its time, its changes, and how many trials had their row by then

Trials that a changed study would still run stay valid (_membership.py). But the rule of a verdict should be written
before the first trial (protocol, rule 1), so a report says what was written later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from qsgd_ray import paths
from qsgd_ray.config import Study, StudyError, study_from_tree
from qsgd_ray.config.json_text import parse_json
from qsgd_ray.results._stored_json import check_version
from qsgd_ray.storage import Storage, refused

FOLDER = "studies"


@dataclass(frozen=True)
class Version:
    """One version of a study, with the fields of its file.

    Attributes:
        name: `NUMBER-HASH`, the name of its file.
        since: when it was recorded, ISO 8601 in UTC.
        trials_before: number of trials that had their row by then.
        changed: changes against the version before it, one phrase a field; none for the first.
        study: the study as JSON.
    """

    name: str
    since: str
    trials_before: int
    changed: tuple[str, ...]
    study: dict[str, Any]

    @property
    def summary(self) -> str:
        """Time and changes of the version in one line."""
        trials = "1 trial" if self.trials_before == 1 else f"{self.trials_before} trials"
        return f"{self.since}, after {trials}: {'; '.join(self.changed)}"


def versions(storage: Storage) -> tuple[Version, ...]:
    """Return all versions in their order."""
    return tuple(_read(storage, name) for name in storage.names(FOLDER, ".json"))


def late_changes(all_versions: tuple[Version, ...]) -> tuple[Version, ...]:
    """Return the versions that changed the study after trials had been run."""
    return tuple(version for version in all_versions if version.changed and version.trials_before)


def record_version(storage: Storage, study: Study, count: Callable[[], int]) -> tuple[Version, ...]:
    """Return all versions, and record `study` as the last of them; `count` returns how many trials have their row."""
    earlier = versions(storage)
    tree = study.model_dump(mode="json")
    changed: tuple[str, ...] = ()
    if earlier:
        changed = tuple(differences(_relevant(_as_of_now(earlier[-1].study)), _relevant(tree)))
        if not changed:
            return earlier
    elif count():
        raise StudyError(
            f"--storage: got {storage.location()}, which holds trials of an earlier version of this package, whose "
            f"rows do not tell of what study they are; allowed: a new {storage.kind}"
        )
    digest = hashlib.sha256(json.dumps(_relevant(tree), sort_keys=True).encode()).hexdigest()[:10]
    name = f"{len(earlier) + 1:03d}-{digest}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    version = Version(name, now, count() if earlier else 0, changed, tree)
    storage.put(f"{FOLDER}/{name}.json", json.dumps(asdict(version), indent=2).encode())
    return (*earlier, version)


def _read(storage: Storage, name: str) -> Version:
    try:
        fields = parse_json(storage.read(f"{FOLDER}/{name}"))
        if not isinstance(fields, dict):
            raise ValueError("no object")
        check_version(fields)
        return Version(**fields | {"changed": tuple(fields["changed"])})
    except ValueError as error:
        if isinstance(error, StudyError):
            raise
        place = storage.location(f"{FOLDER}/{name}")
        raise refused(place, f"which is broken ({error})", "a version of a study") from None


def _as_of_now(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a stored study with the defaults of fields that came since; as it is, where it is no study any more."""
    try:
        return study_from_tree(tree).model_dump(mode="json")
    except StudyError:
        return tree


def _relevant(study: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a study's JSON that its rows and its verdict depend on.

    Of its resources these are the ones that decide how rows are computed, not how much Ray was asked for.
    """
    resources = study.get("resources", {})
    resources = resources if isinstance(resources, dict) else {}
    if study.get("ladder") is None:  # studies from before it came have none
        study = {name: value for name, value in study.items() if name != "ladder"}
    arms = study.get("arms")
    if isinstance(arms, list):
        arms = [{k: v for k, v in arm.items() if k != "resources"} if isinstance(arm, dict) else arm for arm in arms]
        study = study | {"arms": arms}
    return study | {"resources": {name: resources.get(name) for name in ("sharding", "circuit_engine")}}


def differences(old: Any, new: Any) -> Iterator[str]:
    """Yield a phrase for each dotted path at which two JSON trees differ, with the old and the new value."""
    for path, before, after in paths.differences(old, new):
        if after is paths.MISSING:
            yield f"{path} removed"
        elif before is paths.MISSING:
            yield f"{path} added" if isinstance(after, dict) else f"{path} {json.dumps(after)} added"
        else:
            yield f"{path} {json.dumps(before)}, then {json.dumps(after)}"
