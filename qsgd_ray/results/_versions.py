"""What a folder's study was and is: every version that trials were run for, and what was changed between them.

    DIR/study.json                 the study as it is now
    DIR/studies/001-<hash>.json    each version: since when, what was changed, how many trials had their row by then

Trials that a changed study would still run stay valid (_membership.py). But what is judged should be written before the
first trial (protocol, rule 1), so whoever reads a report is told what was written later.
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
from qsgd_ray.storage import Storage

FOLDER = "studies"


@dataclass(frozen=True)
class Version:
    """`changed`: against the version before it, one line a field; nothing for the first."""

    name: str
    since: str
    trials_before: int
    changed: tuple[str, ...]
    study: dict[str, Any]

    @property
    def told(self) -> str:
        """In one line."""
        trials = "1 trial" if self.trials_before == 1 else f"{self.trials_before} trials"
        return f"{self.since}, after {trials}: {'; '.join(self.changed)}"


def versions(storage: Storage) -> tuple[Version, ...]:
    """All versions in their order."""
    return tuple(_read(storage, name) for name in storage.names(FOLDER, ".json"))


def late_changes(found: tuple[Version, ...]) -> tuple[Version, ...]:
    """Those that changed the study after trials had been run."""
    return tuple(version for version in found if version.changed and version.trials_before)


def keep_version(storage: Storage, study: Study, count: Callable[[], int]) -> tuple[Version, ...]:
    """All versions, `study` being the last of them; `count`: how many trials have their row."""
    found = versions(storage)
    tree = study.model_dump(mode="json")
    changed: tuple[str, ...] = ()
    if found:
        changed = tuple(differences(what_counts(_as_of_now(found[-1].study)), what_counts(tree)))
        if not changed:
            return found
    elif count():
        raise StudyError(
            f"--storage: got {storage.location()}, which holds trials of an earlier version of this package, whose "
            f"rows do not tell of what study they are; allowed: a new {storage.kind}"
        )
    digest = hashlib.sha256(json.dumps(what_counts(tree), sort_keys=True).encode()).hexdigest()[:10]
    name = f"{len(found) + 1:03d}-{digest}"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    version = Version(name, now, count() if found else 0, changed, tree)
    storage.put(f"{FOLDER}/{name}.json", json.dumps(asdict(version), indent=2).encode())
    return (*found, version)


def _read(storage: Storage, name: str) -> Version:
    try:
        kept = json.loads(storage.read(f"{FOLDER}/{name}"))
        return Version(**kept | {"changed": tuple(kept["changed"])})
    except (ValueError, TypeError, KeyError) as error:
        raise StudyError(
            f"DIR: got {storage.location(f'{FOLDER}/{name}')}, which is broken ({error}); allowed: a version of a study"
        ) from None


def _as_of_now(tree: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of fields that came since; as it was kept, where it is no study any more."""
    try:
        return study_from_tree(tree).model_dump(mode="json")
    except StudyError:
        return tree


def what_counts(study: dict[str, Any]) -> dict[str, Any]:
    """Of a study's tree what its rows and its verdict depend on: not how much Ray was asked for, but by what rows were
    computed."""
    resources = study.get("resources", {})
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
