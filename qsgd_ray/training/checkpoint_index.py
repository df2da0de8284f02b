"""Which checkpoints a trial has, without what reads one: torch.distributed.checkpoint takes a second to import."""

from __future__ import annotations

import logging

from qsgd_ray.storage import Storage

FOLDER = "checkpoints"
# A store that takes no more is given up, and with it this process, whose trial is then tried again.
WRITE_TIMEOUT_S = 1800

log = logging.getLogger(__name__)


def newest_step(storage: Storage, trial_id: str) -> int:
    """Of the steps after which this trial is kept, the last; 0: of none."""
    names = step_names(storage, f"{FOLDER}/{trial_id}")
    return int(names[-1]) if names else 0


def step_names(storage: Storage, folder: str) -> list[str]:
    """Of the checkpoints there, which are whole, by step."""
    return [name.removesuffix(".json") for name in storage.names(folder, ".json")]


def remove_checkpoints(storage: Storage, trial_id: str) -> None:
    """Remove all of a trial's: it has its row. What cannot be removed is logged."""
    folder = f"{FOLDER}/{trial_id}"
    try:
        storage.remove(folder)
    except OSError as error:
        log.warning("%s: %s", storage.location(folder), error)
