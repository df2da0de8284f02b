"""Choose a tracker from an option, `NAME[=WHERE]`, before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from qsgd_ray.config import StudyError
from qsgd_ray.storage import Folder, Storage
from qsgd_ray.tracking._mlflow import Mlflow
from qsgd_ray.tracking._tensorboard import TensorBoard
from qsgd_ray.tracking.tracker import Tracker

_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


@dataclass(frozen=True)
class TrackerChoice:
    """A tracker that the user has chosen.

    Attributes:
        name: tensorboard or mlflow.
        open: connects to it; may take seconds and raise what its package raises.
    """

    name: str
    open: Callable[[], Tracker]


def choose_tracker(word: str, option: str, study: str, place: Storage) -> TrackerChoice:
    """Return the tracker that an option names.

    Args:
        word: NAME or NAME=WHERE.
        option: the option's own name, for messages.
        study: the study's name.
        place: where its results go; the default is below it.

    Raises:
        StudyError: the name is unknown, its package is not installed, or WHERE is missing and has no default.
    """
    name, _, where = word.partition("=")
    if name not in _PACKAGES:
        raise StudyError(f"{option}: got {word!r}; allowed: tensorboard, tensorboard=FOLDER, mlflow, mlflow=URI")
    if find_spec(_PACKAGES[name]) is None:
        raise StudyError(
            f"{option}: got {word!r}; allowed: a tracker that is installed (pip install 'qsgd-ray[{name}]')"
        )
    if name == "mlflow":
        where = where or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not where:
        if not isinstance(place, Folder):
            allowed = "tensorboard=FOLDER" if name == "tensorboard" else "mlflow=URI"
            raise StudyError(f"{option}: got {word!r} with results at {place}; allowed: {allowed}")
        default = place.writable("tensorboard" if name == "tensorboard" else "mlflow.db").resolve()
        where = str(default) if name == "tensorboard" else f"sqlite:///{default}"

    def connect() -> Tracker:
        return TensorBoard(Path(where)) if name == "tensorboard" else Mlflow(where, study)

    return TrackerChoice(name, connect)
