"""Index of a trial's checkpoints: a storage and a trial come in, the steps of its whole checkpoints go out.

    checkpoints/<trial_id>/00000200/        tensors
    checkpoints/<trial_id>/00000200.json    the manifest; put into place last: a checkpoint is there whole or not at all
    checkpoints/<trial_id>/00000200.unread  a mark: this checkpoint could not be read once

It is apart from training/checkpoints.py: a driver that watches a training needs the index alone, and neither torch nor
a process group.
"""

from __future__ import annotations

import logging

from qsgd_ray.config import StudyError
from qsgd_ray.storage import Storage
from qsgd_ray.training._checkpoint_store import files_below
from qsgd_ray.training._manifest import is_old

FOLDER = "checkpoints"
# A store that takes no more is given up, and with it this process; the trial is then retried.
WRITE_TIMEOUT_S = 1800

_log = logging.getLogger(__name__)


def newest_step(storage: Storage, trial_id: str) -> int:
    """Return the step of the newest whole checkpoint of a trial; 0: there is none.

    Args:
        storage: the study's storage.
        trial_id: name of the trial.
    """
    names = _checkpoint_names(storage, trial_id)
    return int(names[-1]) if names else 0


def require_known_format(storage: Storage) -> None:
    """Refuse a study in which a trial would go on from a checkpoint that an earlier version has written.

    Args:
        storage: the study's storage.

    Raises:
        StudyError: there is one; says what to do.
    """
    for name in files_below(storage, FOLDER, ".json"):
        if is_old(storage.read(name)):
            raise StudyError(
                f"checkpoints: got {name.removeprefix(f'{FOLDER}/')} of an earlier version, whose format is not read "
                f"any more; allowed: none; remove the folder {storage.location(FOLDER)}, and its trials start anew"
            )


def _checkpoint_names(storage: Storage, trial_id: str) -> list[str]:
    """Return the names of a trial's whole checkpoints, e.g. "00000200", by rising step.

    Args:
        storage: the study's storage.
        trial_id: name of the trial.
    """
    return [name.removesuffix(".json") for name in storage.names(f"{FOLDER}/{trial_id}", ".json")]


def _prune_checkpoints(storage: Storage, trial_id: str, keep: int) -> None:
    """Remove all but the newest checkpoints of a trial, each manifest first, so that none is there by half.

    Args:
        storage: the study's storage.
        trial_id: name of the trial.
        keep: checkpoints that stay, >= 1.
    """
    for name in _checkpoint_names(storage, trial_id)[:-keep]:
        storage.remove(f"{FOLDER}/{trial_id}/{name}.json")
        storage.remove(f"{FOLDER}/{trial_id}/{name}")


def _mark_unread(storage: Storage, trial_id: str, name: str) -> None:
    """Mark a checkpoint that could not be read; the second time, remove it from the index.

    A store may fail once, and a process may die while it reads; a broken checkpoint fails twice.

    Args:
        storage: the study's storage.
        trial_id: name of the trial.
        name: name of the checkpoint.
    """
    folder, mark = f"{FOLDER}/{trial_id}", f"{name}.unread"
    if mark in storage.names(folder, ".unread"):
        storage.remove(f"{folder}/{name}.json")
    storage.put(f"{folder}/{mark}", b"")


def remove_checkpoints(storage: Storage, trial_id: str) -> None:
    """Remove all checkpoints of a trial, which has its row by now; log what cannot be removed.

    Args:
        storage: the study's storage.
        trial_id: name of the trial.
    """
    folder = f"{FOLDER}/{trial_id}"
    try:
        storage.remove(folder)
    except OSError as error:
        _log.warning("%s: %s", storage.location(folder), error)
