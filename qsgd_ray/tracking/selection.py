"""Which trackers somebody wants: `NAME[=WHERE]` and where results lie in; how to open one out.

Or a `StudyError` before anything runs.
"""

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

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


@dataclass(frozen=True)
class TrackerChoice:
    """A tracker that somebody wants; `open` may take seconds."""

    name: str
    open: Callable[[], Tracker]


def choose_tracker(word: str, option: str, study: str, place: Storage) -> TrackerChoice:
    """`word`: NAME or NAME=WHERE, as `option` got it; `study`: its name; `place`: where its results lie."""
    name, _, where = word.partition("=")
    if name not in PACKAGES:
        raise StudyError(f"{option}: got {word!r}; allowed: tensorboard, tensorboard=FOLDER, mlflow, mlflow=URI")
    if find_spec(PACKAGES[name]) is None:
        raise StudyError(
            f"{option}: got {word!r}; allowed: a tracker that is installed (pip install 'qsgd-ray[{name}]')"
        )
    if name == "mlflow":
        where = where or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not where:
        if not isinstance(place, Folder):
            told = "tensorboard=FOLDER" if name == "tensorboard" else "mlflow=URI"
            raise StudyError(f"{option}: got {word!r} with results at {place}; allowed: {told}")
        default = place.path.resolve() / ("tensorboard" if name == "tensorboard" else "mlflow.db")
        where = str(default) if name == "tensorboard" else f"sqlite:///{default}"

    def open_it() -> Tracker:
        return TensorBoard(Path(where)) if name == "tensorboard" else Mlflow(where, study)

    return TrackerChoice(name, open_it)
